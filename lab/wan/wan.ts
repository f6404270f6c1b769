/**
 * The network between the hosts: a router of its own with rate and delay in each direction.
 *
 *     hostA eth0 ── to-hostA   wan   to-hostB ── eth0 hostB
 *                      │ netem, or:     │
 *                     from-a ═ delay ═ from-b
 *
 * With netem in the kernel, each egress has a rate and half the round-trip time. Without, what arrives from one host is
 * routed into a TUN device (rate: tbf), held by delayLine.c for half the round-trip time, and routed on from the other.
 */
import { copyFile, writeFile } from 'node:fs/promises';
import { execa } from 'execa';
import { compile } from '../compile.js';
import { LabError } from '../errors.js';
import { cancel, labExec, memberPid } from '../host/members.js';
import { type HostName, hostNames, labPaths, networks, type WanSettings } from '../settings.js';

/** How long a full queue takes to drain: what a router would buffer. */
const queueMs = 50;

const tun: Record<HostName, string> = { hostA: 'from-a', hostB: 'from-b' };

/** Connects the two hosts and sets rate and delay. All three members must run and have no network yet. */
export async function raiseWan(settings: WanSettings, signal?: AbortSignal): Promise<void> {
  const delayLine = await compile('delay-line', ['lab/wan/delayLine.c'], {
    compiler: 'gcc',
    ...(signal ? { signal } : {}),
  });
  await copyFile(delayLine, labPaths.delayLine());
  await writeFile(labPaths.delay(), `${delayUs(settings)}\n`);
  await inWan(
    'mount -t sysfs sysfs /sys; ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward;' +
      'echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter; echo 0 > /proc/sys/net/ipv4/conf/default/rp_filter',
    signal,
  );
  for (const host of hostNames) {
    const { device, gateway } = networks[host];
    const peer = ['type', 'veth', 'peer', 'name', device, 'netns', String(memberPid('wan'))];
    await execa('ip', ['link', 'add', 'eth0', 'netns', String(memberPid(host)), ...peer], cancel(signal));
    await inWan(`ip address add ${gateway}/24 dev ${device}; ip link set ${device} up`, signal);
  }
  if (!(await hasNetem())) await startDelayLine(signal);
  await shapeWan(settings, signal);
}

/** Changes rate and delay of a WAN that is up. Packets under way keep the delay they had. */
export async function shapeWan(settings: WanSettings, signal?: AbortSignal): Promise<void> {
  if (await hasNetem()) {
    const rate = settings.rateBps === null ? '' : `rate ${settings.rateBps}bit`;
    const packets = Math.ceil(((settings.rateBps ?? 10e9) / 8 / 1500) * ((settings.rttMs / 2 + queueMs) / 1000));
    // netem counts packets, so they must be real ones, not batches for a network card to split.
    for (const host of hostNames)
      await labExec(host, ['ip', 'link', 'set', 'eth0', 'gso_max_segs', '1'], cancel(signal));
    for (const host of hostNames) {
      const netem = `netem limit ${Math.max(packets, 100)} delay ${delayUs(settings)}us ${rate}`;
      await inWan(`tc qdisc replace dev ${networks[host].device} root ${netem}`, signal);
    }
    return;
  }
  await writeFile(labPaths.delay(), `${delayUs(settings)}\n`);
  await inWan('kill -HUP "$(cat /run/delay-line.pid)"', signal);
  for (const host of hostNames) {
    if (settings.rateBps === null) {
      await inWan(`tc qdisc del dev ${tun[host]} root 2>/dev/null || true`, signal);
      continue;
    }
    const bytesPerMs = settings.rateBps / 8000;
    const burst = Math.ceil(Math.max(2 * bytesPerMs, 10 * 1514));
    const tbf = `tbf rate ${settings.rateBps}bit burst ${burst} limit ${Math.ceil(burst + queueMs * bytesPerMs)}`;
    await inWan(`tc qdisc replace dev ${tun[host]} root ${tbf}`, signal);
  }
}

/** Stops all forwarding, as a cut cable far away would: nobody is told, packets just no longer arrive. */
export async function cutWan(): Promise<void> {
  await inWan('echo 0 > /proc/sys/net/ipv4/ip_forward');
}

/** Ends what `cutWan` began. */
export async function healWan(): Promise<void> {
  await inWan('echo 1 > /proc/sys/net/ipv4/ip_forward');
}

/** Whether this kernel can delay packets by itself. */
async function hasNetem(): Promise<boolean> {
  // On the loopback device, which carries nothing in this namespace.
  const probe = 'tc qdisc replace dev lo root netem delay 1ms && tc qdisc del dev lo root';
  const result = await labExec('wan', ['sh', '-c', probe], { reject: false });
  return !result.failed;
}

async function startDelayLine(signal: AbortSignal | undefined): Promise<void> {
  const [a, b] = [tun.hostA, tun.hostB];
  await inWan(
    // The private /run is for the pid file alone.
    `mount -t tmpfs tmpfs /run
     setsid --fork sh -c 'echo $$ > /run/delay-line.pid; exec "$@" </dev/null >/run/delay-line.log 2>&1' sh \
       ${labPaths.delayLine()} ${labPaths.delay()} ${a} ${b}
     for try in $(seq 100); do [ -e /sys/class/net/${b} ] && break; sleep 0.05; done
     for device in ${a} ${b}; do
       ip link set "$device" up txqueuelen 10000
     done
     ip rule add iif ${networks.hostA.device} lookup 101
     ip rule add iif ${networks.hostB.device} lookup 102
     ip route add default dev ${a} table 101
     ip route add default dev ${b} table 102`,
    signal,
  );
}

async function inWan(script: string, signal?: AbortSignal): Promise<void> {
  const result = await labExec('wan', ['sh', '-euc', script], { ...cancel(signal), reject: false });
  signal?.throwIfAborted();
  if (result.failed)
    throw new LabError('VMMIG_LAB_COMMAND', `The lab's WAN could not be set: ${result.stderr || result.message}`);
}

function delayUs(settings: WanSettings): number {
  return Math.round(settings.rttMs * 500);
}
