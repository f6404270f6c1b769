import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { HostError } from '../../hosts/errors.js';
import { openHostSession } from '../../hosts/openHostSession.js';
import { type HostService, type StartHostServiceOptions, startHostService } from '../../hosts/remote.js';
import { RemoteError } from '../../hosts/rpc.js';
import type { HostSession } from '../../hosts/session.js';
import { eventually, isAlive, makeHost, startSshd, type TestSshd } from './sshd.js';

const tsx = createRequire(import.meta.url).resolve('tsx');
const serviceFile = fileURLToPath(new URL('rpc/service.ts', import.meta.url));
const service = (...behaviour: string[]) => [process.execPath, '--import', tsx, serviceFile, ...behaviour];

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
])('a service over a $kind session', ({ kind, open }) => {
  let session: HostSession;
  let host: HostService;
  beforeAll(async () => {
    session = await open();
    host = await startHostService(session, service(), { version: '1.2.4' });
  });
  afterAll(async () => {
    await host?.[Symbol.asyncDispose]();
    await session?.[Symbol.asyncDispose]();
  });

  /** What a service that does not come up is found out to be. */
  const whyNot = async (argv: readonly string[], options: StartHostServiceOptions = {}): Promise<unknown> => {
    await using doomed = await startHostService(session, argv, options);
    return await doomed.rpc.greeted.catch((reason: unknown) => reason);
  };

  test('says who it is', async () => {
    expect(await host.rpc.greeted).toEqual({ service: 'vmmig', protocol: 1, version: '1.2.3' });
  });

  test('answers requests, many at once', async () => {
    const numbers = Array.from({ length: 200 }, (_, number) => ({ number, text: 'é\n漢字' }));
    expect(await Promise.all(numbers.map((params) => host.rpc.request('echo', params)))).toEqual(numbers);
    expect(await host.rpc.request('nothing')).toBeNull();
  });

  test('answers what it was asked before it was up, and fails it when it does not come up', async () => {
    await using early = await startHostService(session, service());
    expect(await early.rpc.request('echo', { text: 'first' })).toEqual({ text: 'first' });
    await using doomed = await startHostService(session, service('crash'));
    await expect(doomed.rpc.request('echo', {})).rejects.toMatchObject({ code: 'VMMIG_HOST_SERVICE_ENDED' });
    await using other = await startHostService(session, service('other-protocol'));
    await expect(other.rpc.request('echo', {})).rejects.toMatchObject({ code: 'VMMIG_HOST_INCOMPATIBLE' });
  });

  test('takes and gives a large payload', async () => {
    const params = { blob: 'x'.repeat(16 * 1024 * 1024) };
    expect(await host.rpc.request('echo', params)).toEqual(params);
  });

  test('gives errors with their code, message and fields', async () => {
    const error = await host.rpc.request('fail').catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(RemoteError);
    expect(error).toMatchObject({
      code: 'VMMIG_TEST_FAILURE',
      message: 'the guest would not move',
      retryable: true,
      data: {
        name: 'ServiceError',
        phase: 'precopy',
        retryable: true,
        cause: { name: 'TypeError', message: 'deep', cause: { message: 'deeper' } },
      },
    });
    await expect(host.rpc.request('throwString')).rejects.toMatchObject({
      code: 'VMMIG_REMOTE_ERROR',
      message: 'plain',
    });
  });

  test.each(['no-such-method', 'toString', '__proto__'])('knows no method "%s"', async (method) => {
    await expect(host.rpc.request(method)).rejects.toMatchObject({
      code: 'VMMIG_HOST_INCOMPATIBLE',
      message: `unknown method "${method}"`,
    });
  });

  test('cancels a request that is aborted, which rejects at once with the reason', async () => {
    const before = await host.rpc.request<number>('cancelled');
    const abort = new AbortController();
    using _ = host.rpc.onNotification('waiting', () => abort.abort(new Error('enough')));
    const waiting = host.rpc.request('wait', {}, { signal: abort.signal });
    await expect(waiting).rejects.toThrow('enough');
    await expect.poll(() => host.rpc.request('cancelled')).toBe(before + 1);
    await expect(host.rpc.request('wait', {}, { signal: abort.signal })).rejects.toThrow('enough');
    expect(await host.rpc.request('cancelled')).toBe(before + 1);
  });

  test('cancels a request that takes too long', async () => {
    const before = await host.rpc.request<number>('cancelled');
    await expect(host.rpc.request('wait', {}, { timeoutMs: 200 })).rejects.toMatchObject({
      code: 'VMMIG_HOST_TIMEOUT',
    });
    await expect.poll(() => host.rpc.request('cancelled')).toBe(before + 1);
  });

  test('sends notifications in order, before the answer that follows them', async () => {
    const seen: number[] = [];
    const subscription = host.rpc.onNotification<{ done: number }>('progress', ({ done }) => seen.push(done));
    await host.rpc.request('progress');
    expect(seen).toEqual(Array.from({ length: 100 }, (_, index) => index));
    subscription[Symbol.dispose]();
    await host.rpc.request('progress');
    expect(seen).toHaveLength(100);
  });

  test('tells all that listen to a notification, until each has enough', async () => {
    const seen = [0, 0];
    const first = host.rpc.onNotification('progress', () => seen[0]!++);
    using _ = host.rpc.onNotification('progress', () => seen[1]!++);
    await host.rpc.request('progress');
    first[Symbol.dispose]();
    await host.rpc.request('progress');
    expect(seen).toEqual([100, 200]);
  });

  test('rejects what is pending with exit code and stderr when it ends, and all that follows', async () => {
    const doomed = await startHostService(session, service());
    const pending = [doomed.rpc.request('wait'), doomed.rpc.request('exit')];
    for (const outcome of await Promise.allSettled(pending)) {
      const { reason } = outcome as PromiseRejectedResult;
      expect(reason).toBeInstanceOf(HostError);
      expect(reason).toMatchObject({ code: 'VMMIG_HOST_SERVICE_ENDED', host: session.name });
      expect(reason.message).toContain('exited with code 5');
      expect(reason.message).toContain('going down');
    }
    await expect(doomed.rpc.request('echo', {})).rejects.toMatchObject({ code: 'VMMIG_HOST_SERVICE_ENDED' });
    expect(await doomed.rpc.closed).toMatchObject({ code: 'VMMIG_HOST_SERVICE_ENDED' });
    await doomed.rpc.notify('progress');
    await doomed[Symbol.asyncDispose]();
  });

  test('is given up when something else prints on its stdout', async () => {
    await using doomed = await startHostService(session, service());
    const error = await doomed.rpc.request('garbage').catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'VMMIG_HOST_INCOMPATIBLE' });
    expect((error as Error).message).toContain('oops, a stray print');
  });

  test('ends when it is disposed of, and pending requests with it', async () => {
    const own = await startHostService(session, service());
    const pid = await own.rpc.request<number>('pid');
    const pending = own.rpc.request('wait');
    pending.catch(() => {});
    await own[Symbol.asyncDispose]();
    await expect(pending).rejects.toMatchObject({ code: 'VMMIG_HOST_SERVICE_ENDED' });
    expect(isAlive(pid)).toBe(false);
    expect(await own.rpc.closed).toBeUndefined();
  });

  test('that is not installed is VMMIG_HOST_NO_VMMIG, and says what to do', async () => {
    const error = await whyNot(['no-such-vmmig']);
    expect(error).toMatchObject({ code: 'VMMIG_HOST_NO_VMMIG', host: session.name });
    expect((error as Error).message).toContain('"no-such-vmmig" cannot be run');
    expect((error as Error).message).toContain('install vmmig');
  });

  test('that prints something before its handshake is VMMIG_HOST_INCOMPATIBLE, naming what', async () => {
    const error = await whyNot(service('noise'));
    expect(error).toMatchObject({ code: 'VMMIG_HOST_INCOMPATIBLE' });
    expect((error as Error).message).toContain('Welcome to this host!');
  });

  test('of another protocol is VMMIG_HOST_INCOMPATIBLE, naming both versions', async () => {
    const error = await whyNot(service('other-protocol'), { version: '1.2.4' });
    expect(error).toMatchObject({ code: 'VMMIG_HOST_INCOMPATIBLE' });
    expect((error as Error).message).toMatch(/9\.9\.9.*protocol 99.*1\.2\.4.*speaks 1/);
  });

  test('that crashes at the start is VMMIG_HOST_SERVICE_ENDED with what it said', async () => {
    const error = await whyNot(service('crash'));
    expect(error).toMatchObject({ code: 'VMMIG_HOST_SERVICE_ENDED' });
    expect((error as Error).message).toMatch(/exited with code 3.*out of luck/s);
  });

  test('that never says anything is VMMIG_HOST_TIMEOUT', async () => {
    const error = await whyNot(['sh', '-c', 'exec sleep 1000'], { timeoutMs: 100 });
    expect(error).toMatchObject({ code: 'VMMIG_HOST_TIMEOUT' });
  });

  test('that is aborted while it starts rejects with the reason', async () => {
    const reason = new Error('enough');
    const abort = new AbortController();
    setTimeout(() => abort.abort(reason), 150);
    expect(await whyNot(['sh', '-c', 'exec sleep 1000'], { signal: abort.signal })).toBe(reason);
    await expect(startHostService(session, service(), { signal: abort.signal })).rejects.toBe(reason);
  });

  if (kind === 'SSH') {
    test('ends when the connection dies in the middle of a request, which rejects with VMMIG_SSH_LOST', async () => {
      const others = sshd.sessionPids();
      const own = await openHostSession(sshd.host());
      const mine = sshd.sessionPids().filter((sshdPid) => !others.includes(sshdPid));
      const doomed = await startHostService(own, service());
      const pid = await doomed.rpc.request<number>('pid');
      const pending = doomed.rpc.request('wait');
      pending.catch(() => {});
      for (const sshdPid of mine) process.kill(sshdPid, 'SIGKILL');
      await expect(pending).rejects.toMatchObject({ code: 'VMMIG_SSH_LOST' });
      expect(await doomed.rpc.closed).toMatchObject({ code: 'VMMIG_SSH_LOST' });
      await eventually(() => !isAlive(pid));
      await doomed[Symbol.asyncDispose]();
      await own[Symbol.asyncDispose]();
    });
  }
});
