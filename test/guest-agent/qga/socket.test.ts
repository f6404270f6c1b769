import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { QgaCommands } from '../../../guest-agent/qga/commands.js';
import { QgaSocket } from '../../../guest-agent/qga/socket.js';
import { HostQga } from './hostQga.js';

const code = (value: string) => expect.objectContaining({ code: value });
const limits = { timeoutMs: 10_000 };

let directory: string;
let qga: HostQga;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'vmmig-qga-'));
  qga = await HostQga.start(directory, { blocked: ['guest-exec', 'guest-shutdown'] });
}, 60_000);

afterAll(async () => {
  await qga?.[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

describe('a real qemu-guest-agent', () => {
  afterEach(() => qga.goOn());

  it('answers one command after the other, and says what it refuses', async () => {
    await using socket = new QgaSocket(qga.path);
    const [info, ping, refused] = await Promise.allSettled([
      new QgaCommands(socket).info(),
      socket.execute('guest-ping', {}, limits),
      socket.execute('guest-exec', { path: '/bin/true' }, limits),
    ]);
    expect(info).toMatchObject({ value: { version: expect.stringMatching(/^\d+\.\d/) } });
    expect(info.status === 'fulfilled' && [...info.value.enabled]).toContain('guest-file-read');
    expect(info.status === 'fulfilled' && [...info.value.enabled]).not.toContain('guest-exec');
    expect(ping).toMatchObject({ value: {} });
    expect(refused).toMatchObject({
      reason: { code: 'VMMIG_AGENT_COMMAND', message: expect.stringContaining('guest-exec') },
    });
  });

  it('reads files in the largest pieces that are asked for, byte for byte', async () => {
    const content = Buffer.from(Array.from({ length: 700_000 }, (_, i) => (i * i) % 251));
    await writeFile(join(directory, 'file'), content);
    await using socket = new QgaSocket(qga.path);
    const commands = new QgaCommands(socket);
    const handle = await commands.open(join(directory, 'file'), 'r');
    const parts = [];
    for (let i = 0; i < 4; i++) parts.push(await commands.read(handle, 256 * 1024));
    expect(parts.map((part) => part.length)).toEqual([262_144, 262_144, 175_712, 0]);
    expect(Buffer.concat(parts).equals(content)).toBe(true);
    await commands.close(handle);
  });

  it('is understood again after commands that nobody waited for', async () => {
    await writeFile(join(directory, 'large'), Buffer.alloc(4 * 1024 * 1024, 'x'));
    await using socket = new QgaSocket(qga.path);
    const handle = await new QgaCommands(socket).open(join(directory, 'large'), 'r');
    for (const afterMs of [0, 1, 3, 10, 30]) {
      const signal = AbortSignal.timeout(afterMs);
      const read = socket.execute('guest-file-read', { handle, count: 1024 * 1024 }, { signal, timeoutMs: 5_000 });
      await read.catch((error: unknown) => expect(error).toMatchObject({ name: 'TimeoutError' }));
      expect(await socket.execute('guest-ping', {}, limits)).toEqual({});
    }
    await new QgaCommands(socket).close(handle);
  });

  it('is understood although somebody left half a command, and half a reply', async () => {
    const other = connect(qga.path);
    other.write('{"execute": "guest-info"}\n{"execute": "guest-file-op');
    await sleep(100);
    other.destroy();
    await using socket = new QgaSocket(qga.path);
    expect(await socket.execute('guest-ping', {}, limits)).toEqual({});
  });

  it('is given up in time while another client holds it, and is there when that has left', async () => {
    const other = connect(qga.path);
    other.resume();
    await sleep(50);
    await using socket = new QgaSocket(qga.path);
    const began = performance.now();
    await expect(socket.execute('guest-ping', {}, { timeoutMs: 300 })).rejects.toEqual(code('VMMIG_AGENT_TIMEOUT'));
    expect(performance.now() - began).toBeLessThan(2_000);
    other.destroy();
    expect(await socket.execute('guest-ping', {}, limits)).toEqual({});
  });

  it('is left to others when it is not needed for a second', async () => {
    await using socket = new QgaSocket(qga.path);
    await socket.execute('guest-ping', {}, limits);
    await using other = new QgaSocket(qga.path);
    expect(await other.execute('guest-ping', {}, limits)).toEqual({});
  });

  it('that stands still costs the time limit, not more, also for who waits behind', async () => {
    await using socket = new QgaSocket(qga.path);
    await socket.execute('guest-ping', {}, limits);
    qga.pause();
    const reason = new Error('enough');
    const abort = new AbortController();
    const began = performance.now();
    const waiting = [
      socket.execute('guest-ping', {}, { timeoutMs: 300 }),
      socket.execute('guest-ping', {}, { timeoutMs: 200 }),
      socket.execute('guest-ping', {}, { timeoutMs: 5_000, signal: abort.signal }),
    ];
    setTimeout(() => abort.abort(reason), 250);
    const outcomes = await Promise.allSettled(waiting);
    expect(performance.now() - began).toBeLessThan(3_000);
    const timeout = { reason: { code: 'VMMIG_AGENT_TIMEOUT' } };
    expect(outcomes).toMatchObject([timeout, timeout, { reason }]);
    qga.goOn();
    expect(await socket.execute('guest-ping', {}, limits)).toEqual({});
  });

  it('is interrupted by disposing', async () => {
    const socket = new QgaSocket(qga.path);
    qga.pause();
    const ping = expect(socket.execute('guest-ping', {}, { timeoutMs: 20_000 })).rejects.toEqual(
      code('VMMIG_AGENT_DISCONNECTED'),
    );
    await sleep(50);
    await socket[Symbol.asyncDispose]();
    await ping;
    await expect(socket.execute('guest-ping', {}, limits)).rejects.toEqual(code('VMMIG_AGENT_DISCONNECTED'));
  });
});

describe('what is no qemu-guest-agent', () => {
  let server: Server | undefined;

  /** Answers the sync as it has to be; then `answer` says what follows. */
  async function scripted(answer: (command: string, socket: Socket) => void): Promise<QgaSocket> {
    const path = join(directory, `scripted-${Math.random()}`);
    server = createServer((socket) => {
      socket.on('error', () => {});
      socket.on('data', (bytes: Buffer) => {
        for (const line of bytes.toString('latin1').split('\n').filter(Boolean)) {
          const id = /sync-delimited.*"id":(\d+)/.exec(line)?.[1];
          if (id === undefined) answer(line, socket);
          else socket.write(Buffer.from(`\xff{"return": ${id}}\n`, 'latin1'));
        }
      });
    });
    await new Promise<void>((resolve) => server!.listen(path, resolve));
    return new QgaSocket(path);
  }

  afterEach(() => {
    server?.close();
  });

  it('is an error at once when nothing is there, and when it hangs up', async () => {
    await using nothing = new QgaSocket(join(directory, 'nothing'));
    await expect(nothing.execute('guest-ping', {}, limits)).rejects.toEqual(code('VMMIG_AGENT_UNAVAILABLE'));
    await using leaving = await scripted((_, socket) => socket.destroy());
    await expect(leaving.execute('guest-ping', {}, limits)).rejects.toEqual(code('VMMIG_AGENT_DISCONNECTED'));
  });

  it('is an error when it sends nonsense, too much, or answers twice', async () => {
    const nonsense = ['hello\n', '{"return": \n', `${'x'.repeat(3 * 1024 * 1024)}\n`, '{"return":{}}\n{"return":{}}\n'];
    await using socket = await scripted((_, to) => to.write(nonsense.shift() ?? '{"return": {}}\n'));
    for (let i = 0; i < 3; i++)
      await expect(socket.execute('guest-ping', {}, limits)).rejects.toEqual(code('VMMIG_AGENT_PROTOCOL'));
    await socket.execute('guest-ping', {}, limits);
    await sleep(20);
    expect(await socket.execute('guest-ping', {}, limits)).toEqual({});
  });

  it('is an error when what a command returns is not what it returns', async () => {
    const returns = [
      '{"pid": -1}',
      '{"pid": 1.5}',
      '7',
      'null',
      '{"count": 4, "buf-b64": "AAAA"}',
      '{"count": 9, "buf-b64": "AAAAAAAAAAAA"}',
    ];
    await using socket = await scripted((_, to) => to.write(`{"return": ${returns.shift() ?? '{"count": 1}'}}\n`));
    const commands = new QgaCommands(socket);
    const invalid = code('VMMIG_AGENT_PROTOCOL');
    for (let i = 0; i < 4; i++) await expect(commands.start('/bin/sh', [], Buffer.alloc(0))).rejects.toEqual(invalid);
    for (let i = 0; i < 2; i++) await expect(commands.read(1, 8)).rejects.toEqual(invalid);
    await expect(commands.write(1, Buffer.alloc(2))).rejects.toEqual(invalid);
  });

  it('cannot be asked for more than fits into one argument of a program', async () => {
    await using socket = await scripted(() => {});
    await expect(socket.execute('guest-ping', { x: 'x'.repeat(130_000) }, limits)).rejects.toThrow(RangeError);
  });
});
