import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { HostError } from '../../hosts/errors.js';
import { linkAddress, openHostSession } from '../../hosts/openHostSession.js';
import type { HostSession } from '../../hosts/session.js';
import { eventually, isAlive, makeHost, startSshd, type TestSshd } from './sshd.js';

const NASTY = [
  '',
  ' ',
  "it's",
  "''",
  '"double"',
  '$HOME',
  '$(touch /tmp/vmmig-must-not-exist)',
  '`id`',
  'a\nb',
  '\ttab',
  '\\',
  '\\n',
  '!!',
  '*',
  '~',
  '-n',
  '--',
  'a=b',
  '#no comment',
  '; exit 3',
  '&& true',
  '>out',
  'é 漢字 🙂',
  "'\\''",
  '%s',
  '\u0001\u007f',
];

let sshd: TestSshd;
beforeAll(async () => {
  sshd = await startSshd();
});
afterAll(async () => {
  await sshd?.[Symbol.asyncDispose]();
});

describe.each([
  { kind: 'local', open: () => openHostSession(makeHost('localhost', 'localhost')) },
  { kind: 'SSH', open: () => openHostSession(sshd.host()) },
])('a $kind session', ({ kind, open }) => {
  let session: HostSession;
  beforeAll(async () => {
    session = await open();
  });
  afterAll(async () => {
    await session?.[Symbol.asyncDispose]();
  });

  test('gives exit code, stdout and stderr', async () => {
    const result = await session.exec(['sh', '-c', 'echo out; echo err >&2; exit 7']);
    expect(result).toEqual({ exitCode: 7, signal: null, stdout: 'out\n', stderr: 'err\n' });
  });

  test('hands nasty arguments to the process unchanged', async () => {
    const { stdout } = await session.exec(['printf', '%s\\0', ...NASTY]);
    expect(stdout.split('\0').slice(0, -1)).toEqual(NASTY);
  });

  test('runs a command whose name needs quotes', async () => {
    const { exitCode, stderr } = await session.exec(["/no/such/'command' $(id)"]);
    expect(exitCode).toBe(127);
    expect(stderr).toContain("/no/such/'command' $(id)");
  });

  test('feeds a large input and collects a large output', async () => {
    const input = Buffer.alloc(8 * 1024 * 1024, 'abcdefg\n');
    const { stdout } = await session.exec(['cat'], { input });
    expect(Buffer.from(stdout).equals(input)).toBe(true);
  });

  test('closes the stdin of a command without input', async () => {
    expect((await session.exec(['cat'], { timeoutMs: 5_000 })).stdout).toBe('');
  });

  test('does not mind a command that ends without reading its input', async () => {
    expect((await session.exec(['true'], { input: Buffer.alloc(4 * 1024 * 1024) })).exitCode).toBe(0);
  });

  test('says which signal ended a command', async () => {
    const result = await session.exec(['sh', '-c', 'kill -KILL $$']);
    expect(result).toMatchObject({ exitCode: null, signal: 'SIGKILL' });
  });

  test('ends a command that takes too long', async () => {
    const process = await session.spawn(['sh', '-c', 'echo $$; exec sleep 1000']);
    const pid = Number(await firstChunk(process.stdout));
    await process[Symbol.asyncDispose]();
    expect(isAlive(pid)).toBe(false);

    await expect(session.exec(['sleep', '1000'], { timeoutMs: 100 })).rejects.toMatchObject({
      code: 'VMMIG_HOST_TIMEOUT',
      retryable: true,
    });
  });

  test('kills an aborted command, and rejects with the reason', async () => {
    const abort = new AbortController();
    const reason = new Error('enough');
    const marker = `${1_000_000 + Math.floor(Math.random() * 1_000_000)}`;
    const running = session.exec(['sleep', marker], { signal: abort.signal });
    await delay(200);
    abort.abort(reason);
    await expect(running).rejects.toBe(reason);
    for (let attempt = 0; ; attempt++) {
      const { exitCode } = await session.exec(['pgrep', '-xf', `sleep ${marker}`]);
      if (exitCode === 1) break;
      if (attempt === 50) throw new Error('still running');
      await delay(50);
    }
  });

  test('starts nothing when aborted already', async () => {
    await expect(session.exec(['true'], { signal: AbortSignal.abort(new Error('no')) })).rejects.toThrow('no');
  });

  test('refuses output without bounds', async () => {
    const failure = await session.exec(['yes', 'y'.repeat(4096)]).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(HostError);
    expect(failure).toMatchObject({ code: 'VMMIG_HOST_COMMAND' });
  });

  test('talks with a process on its stdio, and keeps the tail of its stderr', async () => {
    const process = await session.spawn(['sh', '-c', 'seq 100000 >&2; cat; exit 3']);
    process.stdin.write('ping');
    expect(String(await firstChunk(process.stdout))).toBe('ping');
    process.stdin.end();
    expect(await process.exited).toEqual({ exitCode: 3, signal: null });
    expect(process.stderrTail()).toHaveLength(16 * 1024);
    expect(process.stderrTail().endsWith('99999\n100000\n')).toBe(true);
  });

  test('kills a process by signal', async () => {
    const process = await session.spawn(['sleep', '1000']);
    process.stdout.resume();
    await process.kill('SIGTERM');
    expect(await process.exited).toEqual({ exitCode: null, signal: 'SIGTERM' });
    await process.kill(); // of one that has ended is nothing
  });

  test('ends its processes when it is disposed of, even one that ignores its stdin and SIGTERM', async () => {
    const own = await open();
    const process = await own.spawn(['sh', '-c', 'trap "" TERM; echo $$; while :; do sleep 1; done']);
    const pid = Number(await firstChunk(process.stdout));
    expect(isAlive(pid)).toBe(true);
    await own[Symbol.asyncDispose]();
    expect(isAlive(pid)).toBe(false);
    expect(await own.closed).toBeUndefined();
    await expect(own.exec(['true'])).rejects.toThrow(/closed/);
  });

  test('counts the bytes it put on the network', async () => {
    const before = session.bytesOnWire();
    await session.exec(['cat'], { input: Buffer.alloc(100_000) });
    const moved = session.bytesOnWire() - before;
    if (kind === 'local') expect(moved).toBe(0);
    else expect(moved).toSatisfy((bytes: number) => bytes > 200_000 && bytes < 215_000);
  });
});

describe('which session a host gets', () => {
  test('is a local one when the host has our host name', async () => {
    const host = { ...makeHost('hostA', 'root@192.0.2.1'), hostname: hostname() };
    await using session = await openHostSession(host);
    expect(session).toMatchObject({ local: true, name: 'hostA' });
  });

  test('is one over SSH else', async () => {
    await using session = await openHostSession(sshd.host());
    expect(session).toMatchObject({ local: false, name: 'hostA' });
  });

  test('the other host connects to the inventory address, else to the SSH host name', async () => {
    expect(await linkAddress(sshd.host({ address: '192.0.2.7' }))).toBe('192.0.2.7');
    expect(await linkAddress(sshd.host())).toBe('127.0.0.1');
  });
});

describe('a connection that dies', () => {
  test('rejects what is under way with VMMIG_SSH_LOST, and ends the remote processes', async () => {
    const session = await openHostSession(sshd.host());
    const process = await session.spawn(['sh', '-c', 'echo $$; cat']);
    const pid = Number(await firstChunk(process.stdout));
    const running = session.exec(['sleep', '10']);
    running.catch(() => {});
    await delay(200);
    for (const sshdPid of sshd.sessionPids()) killOnly(sshdPid);
    await expect(running).rejects.toMatchObject({ code: 'VMMIG_SSH_LOST', host: 'hostA', retryable: true });
    expect(await process.exited).toEqual({ exitCode: null, signal: null });
    expect(await session.closed).toMatchObject({ code: 'VMMIG_SSH_LOST' });
    await expect(session.exec(['true'])).rejects.toMatchObject({ code: 'VMMIG_SSH_LOST' });
    await eventually(() => !isAlive(pid));
    await session[Symbol.asyncDispose]();
  });
});

/** Only sshd's own process: what it started is to end by itself. */
function killOnly(pid: number): void {
  process.kill(pid, 'SIGKILL');
}

async function firstChunk(stream: NodeJS.ReadableStream): Promise<Buffer> {
  return await new Promise((resolve) => stream.once('data', resolve));
}
