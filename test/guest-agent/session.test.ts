import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AgentClient } from '../../guest-agent/client.js';
import { encodeFrame, frameType } from '../../guest-agent/protocol.js';
import type { TinyGuestLaunch } from '../../lab/guest/launch.js';
import { AgentGuest, buildAgent, Workspace } from './agentGuest.js';
import { type KnownFiles, makeExt4, writeKnownFiles } from './images.js';
import { expectRight, judge } from './truth.js';

/** So many small files that a scan takes a while. */
const FILES = 8_000;
const SCHED_IDLE = 5;

let workspace: Workspace;
let guest: AgentGuest;
let agentPath: string;
let known: KnownFiles;
const diskPaths: Record<string, string> = {};

function launch(name: string, more: Partial<TinyGuestLaunch> = {}): Promise<AgentGuest> {
  return AgentGuest.boot({
    dir: workspace.file(name),
    name,
    memoryMiB: 384,
    agentPath,
    disks: Object.entries(diskPaths).map(([id, path]) => ({ id, path })),
    ...more,
  });
}

/** The agent's, which is SCHED_IDLE during a scan and only then. */
async function schedulingPolicy(of: AgentGuest): Promise<number> {
  return Number(await of.shell.output('cut -d" " -f41 /proc/$(pidof vmmig-agent)/stat'));
}

interface BegunScan {
  agent: AgentClient;
  /** Settles when the scan is over, one way or the other. */
  scan: Promise<unknown>;
}

/** Begins a scan that goes on. */
async function beginScan(to: AgentGuest): Promise<BegunScan> {
  const agent = await AgentClient.connect({ path: to.qemu.agentPath }, { timeoutMs: 5_000 });
  const scan = agent.scan({ mode: 'full' }).catch((error: unknown) => error);
  await sleep(100);
  expect(await schedulingPolicy(to)).toBe(SCHED_IDLE);
  return { agent, scan };
}

/** Keeps the guest's processor busy until what it returns is called. */
async function startHogs(on: AgentGuest): Promise<() => Promise<unknown>> {
  await on.shell.output('for i in 1 2 3 4; do (while :; do :; done) & echo $! >>/run/hogs; done');
  return () => on.shell.output('kill $(cat /run/hogs); rm /run/hogs');
}

/**
 * Sends pings and reads no answers until the agent stands still because nothing of what it sends fits anywhere between
 * it and us; then asks for a scan.
 */
async function beginStalledScan(to: AgentGuest): Promise<BegunScan> {
  const socket = connect(to.qemu.agentPath);
  const agent = await AgentClient.connect({ stream: socket }, { timeoutMs: 5_000 });
  socket.pause();
  // What the agent waits for is seen from its system call: a second for room, five for a command.
  const waitsForRoom = async () =>
    (await to.shell.output('cat /proc/$(pidof vmmig-agent)/syscall')).includes(' 0x3e8 ');
  try {
    for (let i = 0; i < 10_000 && (i % 100 !== 0 || !(await waitsForRoom())); i++) {
      agent.ping().catch(() => {});
      await sleep(2);
    }
    expect(await waitsForRoom()).toBe(true);
    return { agent, scan: agent.scan({ mode: 'full' }).catch((error: unknown) => error) };
  } catch (error) {
    agent.close();
    throw error;
  }
}

async function isRight(on: AgentGuest, ramPath: string): Promise<void> {
  await using agent = await AgentClient.connect({ path: on.qemu.agentPath }, { timeoutMs: 5_000 });
  const verdict = await judge(await agent.scan({ mode: 'full' }), { ramPath, diskPaths }, on.qmp);
  expectRight(verdict, known.pages);
  const resident = known.pages.intersect(verdict.ram);
  expect(resident.size).toBeGreaterThan(0.9 * FILES);
  expect(resident.countIn(verdict.found) / resident.size).toBeGreaterThanOrEqual(0.99);
}

beforeAll(async () => {
  workspace = await Workspace.create();
  agentPath = await buildAgent(workspace.file('agent'));
  known = await writeKnownFiles(workspace.file('tree'), FILES, 4);
  diskPaths.data = workspace.file('data.img');
  await makeExt4(diskPaths.data, known.directory, 128);
  guest = await launch('session', { memoryFile: workspace.ramPath });
  await guest.shell.output('find /data/ -type f -exec cat {} + >/dev/null; sync', { timeoutMs: 120_000 });
}, 300_000);

afterAll(async () => {
  await guest?.[Symbol.asyncDispose]();
  await workspace?.[Symbol.asyncDispose]();
});

describe('the agent of a running guest', () => {
  it('goes on when the host closes the port in the middle of a scan and opens it again', async () => {
    for (const pauseMs of [0, 30, 100, 300, 600]) {
      const agent = await AgentClient.connect({ path: guest.qemu.agentPath });
      const scan = agent.scan({ mode: 'full' }).catch((error: unknown) => error);
      await sleep(pauseMs);
      agent.close();
      await scan;
    }
    await isRight(guest, workspace.ramPath);
  });

  it('goes on when the host did not read what it sent, and left', async () => {
    const { agent, scan } = await beginStalledScan(guest);
    agent.close();
    await scan;
    await isRight(guest, workspace.ramPath);
  });

  it('answers a cancel within 100 ms, whatever else the guest does', async () => {
    await using agent = await AgentClient.connect({ path: guest.qemu.agentPath });
    const cancelAfter = async (pauseMs: number): Promise<number> => {
      const abort = new AbortController();
      const scan = agent.scan({ mode: 'full', signal: abort.signal }).catch((error: unknown) => error);
      await sleep(pauseMs);
      const began = performance.now();
      abort.abort(new Error('cancelled'));
      expect(await scan).toEqual(new Error('cancelled'));
      return performance.now() - began;
    };
    const median = async () => {
      const times = [];
      for (const pauseMs of [50, 80, 120, 160, 200]) times.push(await cancelAfter(pauseMs));
      return times.sort((a, b) => a - b)[2]!;
    };
    expect(await median()).toBeLessThan(100);
    const stopHogs = await startHogs(guest);
    try {
      expect(await median()).toBeLessThan(100);
      expect(await agent.ping()).toBeLessThan(100);
    } finally {
      await stopHogs();
    }
    expect((await agent.scan({ mode: 'changes' })).pages).toBeGreaterThan(0.9 * FILES);
  });

  it('scans at idle priority, with idle I/O, in little memory', async () => {
    await using agent = await AgentClient.connect({ path: guest.qemu.agentPath });
    const scan = agent.scan({ mode: 'full' });
    const policies: number[] = [];
    for (let i = 0; i < 3; i++) policies.push(await schedulingPolicy(guest));
    await scan;
    expect(policies).toContain(SCHED_IDLE);
    expect(await guest.shell.output('ionice -p $(pidof vmmig-agent)')).toContain('idle');
    const status = await guest.shell.output('cat /proc/$(pidof vmmig-agent)/status');
    expect(Number(/^VmHWM:\s+(\d+) kB/m.exec(status)![1])).toBeLessThan(8 * 1024);
  });

  it('keeps its processor time to itself while nobody is connected', async () => {
    const ticks = () => guest.shell.output("awk '{ print $14 + $15 }' /proc/$(pidof vmmig-agent)/stat");
    const before = Number(await ticks());
    await sleep(2_000);
    expect(Number(await ticks()) - before).toBeLessThanOrEqual(2);
  });

  it('takes nothing that it does not know, and no harm from it', async () => {
    const pid = await guest.shell.output('pidof vmmig-agent');
    const session = randomBytes(8);
    for (let round = 0; round < 5; round++) {
      const socket = connect(guest.qemu.agentPath);
      await once(socket, 'connect');
      socket.resume();
      for (let i = 0; i < 40; i++) {
        const type = i % 8 === 0 ? frameType.hello : Math.floor(Math.random() * 256);
        const frame = encodeFrame(type, session, i, randomBytes(Math.floor(Math.random() * 24)));
        const broken = Math.random() < 0.3 ? frame.subarray(Math.floor(Math.random() * frame.length)) : frame;
        socket.write(Math.random() < 0.2 ? randomBytes(300) : broken);
      }
      await sleep(100);
      socket.destroy();
    }
    await using agent = await AgentClient.connect({ path: guest.qemu.agentPath });
    expect((await agent.scan({ mode: 'full' })).pages).toBeGreaterThan(0.9 * FILES);
    expect(await guest.shell.output('pidof vmmig-agent')).toBe(pid);
  });

  // The last: the guest moves twice.
  it('goes on in another QEMU after a migration in the middle of a scan', async () => {
    for (const kind of ['stalled', 'busy']) {
      const stream = workspace.file(`${kind}.stream`);
      const { agent, scan } = kind === 'stalled' ? await beginStalledScan(guest) : await beginScan(guest);
      await guest.qmp.execute('stop');
      await guest.qmp.execute('migrate', { uri: `exec:cat >${stream}` });
      while ((await guest.qmp.execute('query-migrate')).status !== 'completed') await sleep(50);
      agent.close();
      await scan;
      await guest[Symbol.asyncDispose]();
      const ramPath = `${workspace.ramPath}.${kind}`;
      guest = await launch(kind, { memoryFile: ramPath, incoming: `exec:cat ${stream}` });
      await isRight(guest, ramPath);
    }
  }, 120_000);
});

describe('a guest without an agent', () => {
  it('is found out quickly', async () => {
    await using bare = await launch('bare', { agentPath: null, disks: [], memoryMiB: 128 });
    const began = performance.now();
    const connecting = AgentClient.connect({ path: bare.qemu.agentPath });
    await expect(connecting).rejects.toMatchObject({ code: 'VMMIG_AGENT_UNAVAILABLE' });
    expect(performance.now() - began).toBeLessThan(2_500);
  });
});
