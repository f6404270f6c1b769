/** A guest with Debian's qemu-guest-agent, and with an agent of its own to compare with. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AgentClient, type ScanResult } from '../../../guest-agent/client.js';
import { type GuestAgent, openAgent } from '../../../guest-agent/guestAgent.js';
import { QgaSocket } from '../../../guest-agent/qga/socket.js';
import { inspectGuestServices } from '../../../hypervisor/index.js';
import { guestPaths } from '../../../lab/index.js';
import { AgentGuest, buildAgent, Workspace } from '../agentGuest.js';
import { type KnownFiles, makeExt4, writeKnownFiles } from '../images.js';
import { expectRight, judge } from '../truth.js';
import { withQemuGa } from './qemuGa.js';

const FILES = 2_000;

let workspace: Workspace;
let guest: AgentGuest;
let program: string;
let known: KnownFiles;
let qgaPath: string;
const diskPaths: Record<string, string> = {};

function open(): Promise<GuestAgent> {
  return openAgent({ port: null, qga: new QgaSocket(qgaPath) }, { program });
}

/**
 * Programs that run, what lies where programs leave things, and what the daemon has open. Without the file that the guest's
 * counter is written into before it is renamed.
 */
async function state(): Promise<string> {
  return await guest.shell.output(
    `programs=$(for p in /proc/[0-9]*; do readlink $p/exe; done); echo "$programs" | sort
     ls -A /run /tmp /dev/shm 2>/dev/null | grep -vx counter.new
     ${openFiles} | grep '^/'`,
  );
}

const openFiles = 'for f in /proc/$(pidof qemu-ga)/fd/*; do readlink $f; done';

/** qemu-guest-agent again, with other options. */
async function restartQga(options: string): Promise<void> {
  const command = `qemu-ga -p /dev/virtio-ports/org.qemu.guest_agent.0 -t /run -f /run/qemu-ga.pid ${options}`;
  await guest.shell.output(`kill $(pidof qemu-ga); while pidof qemu-ga; do usleep 10000; done
    setsid ${command} </dev/null >/run/qemu-ga.log 2>&1 &`);
  while ((await inspectGuestServices(guest.qmp)).qgaPath === null) await sleep(50);
}

beforeAll(async () => {
  workspace = await Workspace.create();
  program = await buildAgent(workspace.file('agent'));
  known = await writeKnownFiles(workspace.file('tree'), FILES, 4);
  diskPaths.data = workspace.file('data.img');
  qgaPath = workspace.file('qga.sock');
  await makeExt4(diskPaths.data, known.directory, 64);
  const qga = await withQemuGa(workspace.file('qga'), qgaPath);
  guest = await AgentGuest.boot({
    dir: workspace.file('guest'),
    name: 'qga',
    memoryMiB: 384,
    memoryFile: workspace.ramPath,
    agentPath: program,
    disks: Object.entries(diskPaths).map(([id, path]) => ({ id, path })),
    ...qga,
    extraArgs: [...qga.extraArgs!, '-device', 'virtio-balloon-pci,id=balloon0'],
  });
  await guest.shell.output('find /data/ -type f -exec cat {} + >/dev/null; sync', { timeoutMs: 120_000 });
}, 300_000);

afterAll(async () => {
  await guest?.[Symbol.asyncDispose]();
  await workspace?.[Symbol.asyncDispose]();
});

describe('a guest with nothing but qemu-guest-agent', () => {
  it('tells what its own agent tells, and is as it was afterwards', async () => {
    expect(await inspectGuestServices(guest.qmp)).toEqual({
      portPath: guestPaths(workspace.file('guest'), 'qga').agentPath,
      qgaPath,
      pageCacheBytes: null,
    });
    const before = await state();
    const own = await scanOverPort();
    const agent = await open();
    expect(agent.via).toBe('qemu-ga');
    expect(agent.version).toMatch(/^\d+\.\d+\.\d+$/);
    const brought = await agent.scan({ mode: 'full' });
    const verdict = await judge(brought, { ramPath: workspace.ramPath, diskPaths }, guest.qmp);
    expectRight(verdict, known.pages);
    const resident = known.pages.intersect(verdict.ram);
    expect(resident.size).toBeGreaterThan(0.9 * FILES);
    expect(resident.countIn(verdict.found)).toBe(resident.size);
    expect(brought.disks).toEqual(own.disks);
    expect(brought.runs).toEqual(own.runs);
    await expect.poll(state, { timeout: 10_000 }).toBe(before);
    expect((await agent.scan({ mode: 'changes' })).runs).toEqual(brought.runs);
    await agent[Symbol.asyncDispose]();
    await expect.poll(state, { timeout: 10_000 }).toBe(before);
  });

  it('tells how much page cache it has to who has its balloon polled', async () => {
    const balloon = { path: '/machine/peripheral/balloon0', property: 'guest-stats-polling-interval' };
    await guest.qmp.execute('qom-set', { ...balloon, value: 1 });
    const bytes = async () => (await inspectGuestServices(guest.qmp)).pageCacheBytes ?? 0;
    await expect.poll(bytes, { timeout: 10_000 }).toBeGreaterThan(2 * FILES * 4096);
    expect(await bytes()).toBeLessThan(200 * 2 ** 20);
    await guest.qmp.execute('qom-set', { ...balloon, value: 0 });
  });

  it('is not asked where its own agent answers', async () => {
    const qga = new QgaSocket('/nowhere');
    await using agent = await openAgent({ port: guest.qemu.agentPath, qga });
    expect(agent.via).toBe('port');
    await expect(qga.execute('guest-ping', {}, { timeoutMs: 100 })).rejects.toMatchObject({
      code: 'VMMIG_AGENT_DISCONNECTED',
    });
  });

  it('is looked at with idle priority, and without reading from its disks', async () => {
    await using agent = await open();
    const pid = await guest.shell.output("pidof vmmig-agent | tr ' ' '\\n' | sort -n | tail -1");
    let policies = '';
    const scan = agent.scan({ mode: 'full' });
    for (let i = 0; i < 3; i++) policies += await guest.shell.output(`cut -d" " -f41 /proc/${pid}/stat`);
    expect(await guest.shell.output(`awk '/^read_bytes/ { print $2 }' /proc/${pid}/io`)).toBe('0');
    expect(await guest.shell.output(`ionice -p ${pid}`)).toContain('idle');
    await scan;
    expect(policies).toContain('5');
  });

  it('may have a /run that no programs are run from', async () => {
    const before = await state();
    await guest.shell.output('mount -o remount,noexec /run; mkdir -p /dev/shm');
    try {
      await using agent = await open();
      expect(await guest.shell.output(`${openFiles} | grep /out`)).toMatch(/^\/dev\/shm\//);
      expect((await agent.scan({ mode: 'full' })).pages).toBeGreaterThan(0.9 * FILES);
    } finally {
      await guest.shell.output('mount -o remount,exec /run; rmdir /dev/shm');
    }
    await expect.poll(state, { timeout: 10_000 }).toBe(before);
  });

  it('is left as it was when the daemon is restarted in the middle', async () => {
    await restartQga('');
    const before = await state();
    await using agent = await open();
    await restartQga('');
    await expect(agent.scan({ mode: 'full' })).rejects.toMatchObject({ code: expect.stringMatching(/^VMMIG_AGENT_/) });
    await expect.poll(state, { timeout: 10_000 }).toBe(before);
    expect((await agent.scan({ mode: 'changes' })).pages).toBeGreaterThan(0.9 * FILES);
  });

  it('says so when it does not let programs be run', async () => {
    await restartQga('--block-rpcs=guest-exec');
    await expect(open()).rejects.toMatchObject({
      code: 'VMMIG_AGENT_BLOCKED',
      message: expect.stringContaining('guest-exec'),
    });
    await restartQga('');
  });

  it('costs a few seconds at most while the daemon stands still, or nobody listens', async () => {
    const began = performance.now();
    await guest.shell.output('kill -STOP $(pidof qemu-ga)');
    await expect(open()).rejects.toMatchObject({ code: 'VMMIG_AGENT_UNAVAILABLE' });
    expect(performance.now() - began).toBeLessThan(5_000);
    await guest.shell.output('kill -CONT $(pidof qemu-ga)');
    await (await open())[Symbol.asyncDispose]();
    await guest.shell.output('kill $(pidof qemu-ga)');
    await sleep(100);
    expect(await inspectGuestServices(guest.qmp)).toMatchObject({ qgaPath: null });
  });
});

async function scanOverPort(): Promise<ScanResult> {
  await using agent = await AgentClient.connect({ path: guest.qemu.agentPath });
  return await agent.scan({ mode: 'full' });
}
