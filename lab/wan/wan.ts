/**
 * The network between the hosts: a router of its own with rate and delay in each direction.
 *
 *     hostA eth0 ── to-hostA   wan   to-hostB ── eth0 hostB
 *                      │ netem, or:     │
 *                     from-a ═ line ═ from-b
 *
 * With netem in the kernel, each egress has a rate and half the round-trip time. Without, what arrives from one host is
 * routed into a TUN device, comes out of another as late as wanLink.c makes it, and is routed on from there. A qdisc for
 * the rate before a TUN device was tried: with segmentation offload, tbf loses 6 % of its rate.
 */
import { copyFile, writeFile } from 'node:fs/promises';
import { execa } from 'execa';
import { compile } from '../compile.js';
import { LabError } from '../errors.js';
import { cancel, labExec, memberPid } from '../host/members.js';
import { type HostName, hostNames, labPaths, networks, type WanSettings } from '../settings.js';

/** How long a full queue takes to drain: what a router would buffer. */
const queueMs = 50;

/** Counters of wanLink.c, inside the WAN's namespaces. */
export const linkCounters = '/run/wan-link.counters';

const tun: Record<HostName, string> = { hostA: 'from-a', hostB: 'from-b' };

/** Connects the two hosts and sets rate and delay. All three members must run and have no network yet. */
export async function raiseWan(settings: WanSettings, signal?: AbortSignal): Promise<void> {
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
  const netem = await hasNetem();
  if (!netem) await startLink(settings, signal);
  // netem counts packets, so they must be real ones. The link counts bytes, and needs batches small beside its queue.
  const batches = netem ? ['gso_max_segs', '1'] : ['gso_max_size', '16384'];
  for (const host of hostNames) await labExec(host, ['ip', 'link', 'set', 'eth0', ...batches], cancel(signal));
  await shapeWan(settings, signal);
}

/** Changes rate and delay of a WAN that is up. Packets under way keep the delay they had. */
export async function shapeWan(settings: WanSettings, signal?: AbortSignal): Promise<void> {
  if (await hasNetem()) {
    const rate = settings.rateBps === null ? '' : `rate ${settings.rateBps}bit`;
    const packets = Math.ceil(((settings.rateBps ?? 10e9) / 8 / 1500) * ((settings.rttMs / 2 + queueMs) / 1000));
    for (const host of hostNames) {
      const netem = `netem limit ${Math.max(packets, 100)} delay ${delayUs(settings)}us ${rate}`;
      await inWan(`tc qdisc replace dev ${networks[host].device} root ${netem}`, signal);
    }
    return;
  }
  await writeLinkParameters(settings);
  await inWan('kill -HUP "$(cat /run/wan-link.pid)"', signal);
}

/** Stops all forwarding, as a cut cable far away would: nobody is told, packets just no longer arrive. */
export async function cutWan(): Promise<void> {
  await inWan('echo 0 > /proc/sys/net/ipv4/ip_forward');
}

/** Ends what `cutWan` began. */
export async function healWan(): Promise<void> {
  await inWan('echo 1 > /proc/sys/net/ipv4/ip_forward');
}

/** Whether what `raiseWan` started still runs. */
export async function isWanWhole(): Promise<boolean> {
  const probe = '[ ! -e /run/wan-link.pid ] || kill -0 "$(cat /run/wan-link.pid)"';
  return !(await labExec('wan', ['sh', '-c', probe], { reject: false })).failed;
}

/** Whether this kernel can delay packets by itself. */
async function hasNetem(): Promise<boolean> {
  // On the loopback device, which carries nothing in this namespace.
  const probe = 'tc qdisc replace dev lo root netem delay 1ms && tc qdisc del dev lo root';
  const result = await labExec('wan', ['sh', '-c', probe], { reject: false });
  return !result.failed;
}

async function startLink(settings: WanSettings, signal: AbortSignal | undefined): Promise<void> {
  const program = await compile('wan-link', ['lab/wan/wanLink.c'], { compiler: 'gcc', ...(signal ? { signal } : {}) });
  await copyFile(program, labPaths.wanLink());
  await writeLinkParameters(settings);
  const [a, b] = [tun.hostA, tun.hostB];
  await inWan(
    `mount -t tmpfs tmpfs /run
     setsid --fork sh -c 'echo $$ > /run/wan-link.pid; exec "$@" </dev/null >/run/wan-link.log 2>&1' sh \
       "$PROGRAM" "$PARAMETERS" ${linkCounters} ${a} ${b}
     for try in $(seq 100); do [ -e /sys/class/net/${b} ] && break; sleep 0.05; done
     for device in ${a} ${b}; do ip link set "$device" up txqueuelen 10000; done
     ip rule add iif ${networks.hostA.device} lookup 101
     ip rule add iif ${networks.hostB.device} lookup 102
     ip route add default dev ${a} table 101
     ip route add default dev ${b} table 102`,
    signal,
    { PROGRAM: labPaths.wanLink(), PARAMETERS: labPaths.wanLinkParameters() },
  );
}

function writeLinkParameters(settings: WanSettings): Promise<void> {
  const parameters = [delayUs(settings), settings.rateBps ?? 0, queueMs * 1000];
  return writeFile(labPaths.wanLinkParameters(), `${parameters.join(' ')}\n`);
}

async function inWan(script: string, signal?: AbortSignal, env: Record<string, string> = {}): Promise<void> {
  const result = await labExec('wan', ['sh', '-euc', script], { ...cancel(signal), env, reject: false });
  signal?.throwIfAborted();
  if (result.failed)
    throw new LabError('VMMIG_LAB_COMMAND', `The lab's WAN could not be set: ${result.stderr || result.message}`);
}

function delayUs(settings: WanSettings): number {
  return Math.round(settings.rttMs * 500);
}
