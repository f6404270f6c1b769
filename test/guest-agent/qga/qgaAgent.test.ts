/** A real qemu-guest-agent on this machine brings agents that tell of pages that do not exist: see syntheticScan.c. */
import { mkdir, readdir, readFile, readlink, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AgentError } from '../../../guest-agent/errors.js';
import { openAgent } from '../../../guest-agent/guestAgent.js';
import { QgaAgent } from '../../../guest-agent/qga/qgaAgent.js';
import { QgaSocket } from '../../../guest-agent/qga/socket.js';
import type { QgaTransport } from '../../../guest-agent/qga/transport.js';
import { Workspace } from '../agentGuest.js';
import { buildSyntheticAgent, HostQga } from './hostQga.js';

const MEBIBYTE = 1024 * 1024;
const GROUP_PAGES = 4096;
const MANY_GROUPS = 4096;
const GROUPS = 512;
/** What the agent may have waiting for us. */
const WINDOW_BYTES = 4 * MEBIBYTE;

let workspace: Workspace;
let program: string;
let qga: HostQga;

type Execute = QgaTransport['execute'];

/** A transport that `between` may change or hold up. */
function through(
  qga: HostQga,
  between: (next: Execute, ...command: Parameters<Execute>) => Promise<unknown>,
): QgaTransport {
  const socket = new QgaSocket(qga.path);
  return {
    execute: (...command) => between((...changed) => socket.execute(...changed), ...command),
    [Symbol.asyncDispose]: () => socket[Symbol.asyncDispose](),
  };
}

async function descriptors(qga: HostQga): Promise<string[]> {
  const directory = `/proc/${qga.pid}/fd`;
  const links = (await readdir(directory)).map((fd) => readlink(join(directory, fd)).catch(() => ''));
  return (await Promise.all(links)).sort();
}

/** Ids of the daemon's children. */
async function children(qga: HostQga): Promise<string> {
  return (await readFile(`/proc/${qga.pid}/task/${qga.pid}/children`, 'utf8')).trim();
}

async function directories(): Promise<string[]> {
  const all = await Promise.all(['/run', '/dev/shm', '/tmp'].map((parent) => readdir(parent)));
  return all.flat().filter((name) => /^vmmig-[0-9a-f]{24}$/.test(name));
}

async function expectNothingLeft(qga: HostQga, before: string[]): Promise<void> {
  // A machine that is busy may take longer than an agent is waited for.
  await until(async () => (await children(qga)) === '');
  expect(await directories()).toEqual([]);
  expect((await descriptors(qga)).filter((link) => !link.startsWith('socket:'))).toEqual(
    before.filter((link) => !link.startsWith('socket:')),
  );
}

beforeAll(async () => {
  workspace = await Workspace.create();
  program = await buildSyntheticAgent(workspace.path);
  qga = await HostQga.start(workspace.path, { env: { SYNTHETIC_GROUPS: String(GROUPS), SYNTHETIC_PAUSE_US: '200' } });
}, 60_000);

afterAll(async () => {
  await qga?.[Symbol.asyncDispose]();
  await workspace?.[Symbol.asyncDispose]();
});

describe('an agent brought by qemu-guest-agent', () => {
  it('tells of sixteen million pages, with little memory there, and leaves nothing', async () => {
    const directory = workspace.file('many');
    await mkdir(directory);
    await using many = await HostQga.start(directory, { env: { SYNTHETIC_GROUPS: String(MANY_GROUPS) } });
    const before = await descriptors(many);
    let isHeld = true;
    let heldReads = 0;
    const transport = through(many, async (next, command, args, limits) => {
      const isLarge = command === 'guest-file-read' && heldReads > 0;
      while (isLarge && isHeld) await sleep(10);
      return await next(command, args, limits);
    });
    await using agent = await QgaAgent.open(transport, { program });
    expect(await directories()).toEqual([]);
    heldReads = 1;
    const scanning = agent.scan({ mode: 'full' });
    // Nobody reads: it stops writing.
    const output = await outputPath(many);
    await until(async () => (await stat(output)).size === WINDOW_BYTES);
    await sleep(100);
    expect((await stat(output)).size).toBe(WINDOW_BYTES);
    isHeld = false;
    let mostBytes = 0;
    const watching = setInterval(async () => {
      const { blocks, size } = await stat(output).catch(() => ({ blocks: 0, size: 0 }));
      sizeBytes = Math.max(sizeBytes, size);
      mostBytes = Math.max(mostBytes, blocks * 512);
    }, 20);
    let sizeBytes = 0;
    const full = await scanning.finally(() => clearInterval(watching));
    expect(full).toMatchObject({ pages: MANY_GROUPS * GROUP_PAGES, mode: 'full', skipped: {} });
    expect(full.runs.count).toBe(4 * MEBIBYTE);
    expect(sizeBytes).toBeGreaterThan(3 * WINDOW_BYTES);
    // A page is given back when the host says that it has come, which it does once a mebibyte.
    expect(mostBytes).toBeLessThanOrEqual(WINDOW_BYTES + MEBIBYTE);
    const peakKiB = Number(/^VmHWM:\s+(\d+)/m.exec(await readFile(`/proc/${many.pid}/status`, 'utf8'))![1]);
    expect(peakKiB).toBeLessThan(16 * 1024);

    await expectNothingLeft(many, before);
  }, 60_000);

  it('is asked nothing until it is to scan, is gone after that, and comes again', async () => {
    let commands = 0;
    const transport = through(qga, (next, ...command) => {
      commands++;
      return next(...command);
    });
    await using agent = await QgaAgent.open(transport, { program });
    await sleep(100);
    const asked = commands;
    await sleep(500);
    expect(commands).toBe(asked);
    for (let i = 0; i < 2; i++) {
      const first = agent.scan({ mode: 'changes' });
      await expect(agent.scan({ mode: 'full' })).rejects.toMatchObject({ code: 'VMMIG_AGENT_BUSY' });
      expect(await first).toMatchObject({ pages: GROUPS * GROUP_PAGES });
      await until(async () => (await children(qga)) === '');
    }
  }, 30_000);

  it('is gone when a scan was aborted, at once, and comes again for the next', async () => {
    const before = await descriptors(qga);
    await using agent = await QgaAgent.open(new QgaSocket(qga.path), { program });
    const abort = new AbortController();
    const scan = agent.scan({ mode: 'full', signal: abort.signal });
    await sleep(150);
    const began = performance.now();
    abort.abort(new Error('enough'));
    await expect(scan).rejects.toThrow('enough');
    expect(performance.now() - began).toBeLessThan(3_000);
    await expectNothingLeft(qga, before);
    expect(await agent.scan({ mode: 'changes' })).toMatchObject({ pages: GROUPS * GROUP_PAGES });
  }, 30_000);

  it('is found out when it dies, and brought again for the next scan', async () => {
    const before = await descriptors(qga);
    await using agent = await QgaAgent.open(new QgaSocket(qga.path), { program });
    const [shell] = (await children(qga)).split(' ');
    const [id] = (await readFile(`/proc/${shell}/task/${shell}/children`, 'utf8')).trim().split(' ');
    process.kill(Number(id), 'SIGKILL');
    const began = performance.now();
    await expect(agent.scan({ mode: 'full' })).rejects.toMatchObject({ code: 'VMMIG_AGENT_DISCONNECTED' });
    expect(performance.now() - began).toBeLessThan(5_000);
    expect(await agent.scan({ mode: 'changes' })).toMatchObject({ pages: GROUPS * GROUP_PAGES });
    await expectNothingLeft(qga, before);
  }, 30_000);

  it('is not run when a byte of it was changed on its way', async () => {
    const before = await descriptors(qga);
    const damaged = through(qga, (next, command, args, limits) => {
      if (command !== 'guest-exec') return next(command, args, limits);
      const input = Buffer.from(String(args['input-data']), 'base64');
      input.writeUInt8(input.readUInt8(2000) ^ 1, 2000);
      return next(command, { ...args, 'input-data': input.toString('base64') }, limits);
    });
    await using _damaged = damaged;
    await expect(QgaAgent.open(damaged, { program })).rejects.toMatchObject({
      code: 'VMMIG_AGENT_START',
      message: expect.stringMatching(/the program (arrived damaged|did not arrive)/),
    });
    await expectNothingLeft(qga, before);
  });

  it('that is no program is told, in the words of the guest', async () => {
    const nonsense = workspace.file('nonsense');
    await writeFile(nonsense, '\x7fELF nonsense');
    await using transport = new QgaSocket(qga.path);
    await expect(QgaAgent.open(transport, { program: nonsense })).rejects.toMatchObject({
      code: 'VMMIG_AGENT_START',
      message: expect.stringContaining('the program ended with status'),
    });
  });

  it('is an error when a piece of what it says was lost, or comes twice', async () => {
    for (const kind of ['lost', 'twice'] as const) {
      let pieces = 0;
      let previous: unknown;
      const transport = through(qga, async (next, command, args, limits) => {
        if (command === 'guest-file-read' && pieces === 2 && kind === 'twice' && ++pieces) return previous;
        const reply = await next(command, args, limits);
        if (command !== 'guest-file-read' || (reply as { count: number }).count < 1_000) return reply;
        previous = reply;
        return ++pieces === 2 && kind === 'lost' ? await next(command, args, limits) : reply;
      });
      await using agent = await QgaAgent.open(transport, { program });
      const outcome = await agent.scan({ mode: 'full' }).catch((error: unknown) => error);
      expect(outcome).toBeInstanceOf(AgentError);
      expect((outcome as AgentError).code).toBe('VMMIG_AGENT_PROTOCOL');
    }
  }, 30_000);

  it('leaves by itself when the host dies before its first word, or is told to stop', async () => {
    const before = await descriptors(qga);
    const dying = through(qga, async (next, command, args, limits) => {
      if (command === 'guest-file-open') throw new Error('died');
      return await next(command, args, limits);
    });
    await expect(QgaAgent.open(dying, { program })).rejects.toThrow('died');
    await dying[Symbol.asyncDispose]();
    for (const afterMs of [0, 5, 15, 30, 60]) {
      const signal = AbortSignal.timeout(afterMs);
      const opening = openAgent({ port: null, qga: new QgaSocket(qga.path) }, { program, signal });
      const agent = await opening.catch((error: unknown) => {
        expect(error).toMatchObject({ name: 'TimeoutError' });
        return null;
      });
      await agent?.[Symbol.asyncDispose]();
    }
    await until(async () => (await directories()).length > 0);
    await until(async () => (await directories()).length === 0, 13_000);
    // What nobody has asked after since it ended is still known to the daemon, and one file may be open in vain.
    await until(async () => (await children(qga)) === '', 13_000);
    expect((await descriptors(qga)).length).toBeLessThanOrEqual(before.length + 1);
  }, 30_000);
});

describe('opening a guest’s agent', () => {
  it('says what keeps qemu-guest-agent from running one', async () => {
    const directory = workspace.file('blocked');
    await mkdir(directory);
    await using blocked = await HostQga.start(directory, { blocked: ['guest-exec', 'guest-file-open'] });
    await expect(openAgent({ port: null, qga: new QgaSocket(blocked.path) }, { program })).rejects.toMatchObject({
      code: 'VMMIG_AGENT_BLOCKED',
      message: expect.stringContaining('does not allow guest-exec, guest-file-open'),
    });
  });

  it('costs a few seconds at most when nobody answers anywhere', async () => {
    qga.pause();
    try {
      const began = performance.now();
      await expect(
        openAgent({ port: workspace.file('nothing'), qga: new QgaSocket(qga.path) }, { program }),
      ).rejects.toMatchObject({ code: 'VMMIG_AGENT_UNAVAILABLE', message: expect.stringContaining('did not answer') });
      expect(performance.now() - began).toBeLessThan(5_000);
    } finally {
      qga.goOn();
    }
    await expect(openAgent({ port: null, qga: null })).rejects.toMatchObject({ code: 'VMMIG_AGENT_UNAVAILABLE' });
  });
});

/** The agent's output as the daemon has it open. */
async function outputPath(qga: HostQga): Promise<string> {
  const directory = `/proc/${qga.pid}/fd`;
  for (const fd of await readdir(directory)) {
    const path = join(directory, fd);
    if (/\/out( \(deleted\))?$/.test(await readlink(path).catch(() => ''))) return path;
  }
  throw new Error('qemu-ga has no output open');
}

async function until(isTrue: () => Promise<boolean>, timeoutMs = 5_000): Promise<void> {
  for (const deadline = Date.now() + timeoutMs; !(await isTrue()); await sleep(20))
    if (Date.now() > deadline) throw new Error('not in time');
}
