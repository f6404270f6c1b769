/** `vmmig host-service` as a process of its own, asked over its stdio. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Method, methodParams } from '../../host-service/protocol.js';
import { connectRpc, RemoteError, type RpcClient } from '../../hosts/rpc.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const main = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));

/** In a group of its own: what it starts and leaves behind can be seen by the group's number. */
function startService() {
  const service = execa(process.execPath, ['--import', 'tsx', main, 'host-service'], {
    cwd: root,
    reject: false,
    buffer: false,
    detached: true,
    stdin: 'pipe',
    stdout: 'pipe',
    stderr: 'pipe',
  });
  service.stderr.resume();
  return service;
}

type Service = ReturnType<typeof startService>;

/** Whether any process of the service's group is left; the compiler that runs it from source ends a little later. */
function isAnyLeft(service: Service): boolean {
  try {
    process.kill(-service.pid!, 0);
    return true;
  } catch {
    return false;
  }
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await delay(10);
}

const methods = Object.keys(methodParams) as Method[];
const empty = methods.filter((method) => methodParams[method].safeParse({}).success && method !== 'destination.check');

const orphan = { runDir: '/none', guest: { name: 'a', qmpPath: '/x', agentPath: null } } as const;

let dir: string;
let service: Service;
let rpc: RpcClient;
/** Started together with the first: starting is what takes the time. */
let spare: Service[];
let clients: Promise<RpcClient>[];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'vmmig-service-'));
  service = startService();
  spare = Array.from({ length: 4 }, startService);
  // What a service says is lost unless somebody listens by then.
  clients = spare.slice(2).map((each) => connectRpc(each.stdout, each.stdin, { host: 'test' }));
  rpc = await connectRpc(service.stdout, service.stdin, { host: 'test' });
});

afterAll(async () => {
  await rpc?.[Symbol.asyncDispose]();
  for (const unused of spare ?? []) unused.kill('SIGKILL');
  await service;
  await rm(dir, { recursive: true, force: true });
});

async function failureOf(method: string, params?: object, client: RpcClient = rpc): Promise<RemoteError> {
  const thrown = await client.request(method, params, { timeoutMs: 10_000 }).then(
    (result) => new Error(`answered ${JSON.stringify(result)}`),
    (error: unknown) => error,
  );
  expect(thrown).toBeInstanceOf(RemoteError);
  return thrown as RemoteError;
}

describe('the service on a host', () => {
  let silentProbe: Promise<unknown>;
  let silent: Server;

  beforeAll(() => {
    silent = createServer().listen(join(dir, 'silent.qmp'));
    silentProbe = rpc.request('guest.probe', { name: 'a', qmpPath: join(dir, 'silent.qmp'), agentPath: null });
    silentProbe.catch(() => {});
  });
  afterAll(() => silent.close());

  test('answers what needs no guest', async () => {
    const before = Date.now();
    const clock = await rpc.request<number>('host.clock');
    expect(clock).toBeGreaterThanOrEqual(before - 1000);
    expect(clock).toBeLessThanOrEqual(Date.now() + 1000);
    const checks = await rpc.request<{ name: string; ok: boolean; remedy: string | null }[]>('host.checks');
    expect(checks.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['Node.js', 'QEMU', 'qemu-nbd', 'Guest agent']),
    );
    for (const { ok, remedy } of checks) expect(remedy === null).toBe(ok);
  });

  test('knows the methods it has, and no others', async () => {
    for (const method of ['nothing', 'host.', '', '__proto__', 'constructor', 'toString', 'source.inspect.extra'])
      expect(await failureOf(method)).toMatchObject({ code: 'VMMIG_HOST_INCOMPATIBLE' });
  });

  test.each(methods.filter((method) => !empty.includes(method) && method !== 'destination.check'))(
    '%s refuses to do without its parameters',
    async (method) => {
      for (const params of [undefined, {}, [], { name: 7, qmpPath: [], argv: 'sh', key: 1, ports: {} }])
        expect(await failureOf(method, params)).toMatchObject({
          code: 'VMMIG_SERVICE_PARAMS',
          message: expect.stringContaining(method),
        });
    },
  );

  test.each<[string, Method, object]>([
    ['a key that is no base64', 'destination.listen', { migrationId: 'a', key: '!!', ports: null }],
    ['three ports', 'destination.listen', { migrationId: 'a', key: 'AAAA', ports: [1, 2, 3] }],
    ['half a port', 'destination.listen', { migrationId: 'a', key: 'AAAA', ports: [1.5, 2] }],
    ['a boot that is no text', 'destination.ask', { ...orphan, migrationId: 'a', bootId: 1 }],
    ['a way out of its directory', 'destination.conclude', { ...orphan, migrationId: '../x' }],
    ['a slash', 'destination.conclude', { ...orphan, migrationId: 'a/b' }],
    ['no id', 'destination.conclude', { ...orphan, migrationId: '' }],
    ['another kind of scan', 'source.scan', { mode: 'everything' }],
  ])('refuses %s in %s', async (_, method, params) => {
    expect(await failureOf(method, params)).toMatchObject({ code: 'VMMIG_SERVICE_PARAMS' });
  });

  test('stays well whatever parameters it is given', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...methods.filter((method) => !empty.includes(method) && method !== 'destination.check')),
        fc.dictionary(fc.constantFrom('name', 'qmpPath', 'migrationId', 'process', 'mode', 'x'), fc.jsonValue()),
        async (method, params) => {
          // Without the others it is never complete: nothing is begun.
          delete params[
            method === 'source.scan' ? 'mode' : method.startsWith('destination') ? 'migrationId' : 'qmpPath'
          ];
          expect(await failureOf(method, params)).toMatchObject({ code: 'VMMIG_SERVICE_PARAMS' });
        },
      ),
      { numRuns: 60 },
    );
    expect(await rpc.request<number>('host.clock')).toBeGreaterThan(0);
  });

  test('finds no QEMU where none is, and calls a socket that says nothing a problem', async () => {
    const guest = { name: 'vm1', qmpPath: join(dir, 'none.qmp'), agentPath: null };
    expect(await rpc.request('guest.probe', guest)).toMatchObject({ state: null, problem: null });
    expect(await silentProbe).toMatchObject({ state: 'unknown', problem: expect.stringContaining('silent.qmp') });
  });
});

describe('the end of the service', () => {
  test('comes when its input ends without a word, and when it is not spoken to in its language', async () => {
    const [silent, garbage] = spare.splice(0, 2) as [Service, Service];
    silent.stdin.end();
    garbage.stdin.end('GET / HTTP/1.1\r\n\r\n');
    garbage.stdout.resume();
    silent.stdout.resume();
    for (const each of [silent, garbage]) {
      const { signal } = await each;
      expect(signal).toBeUndefined();
      await until(() => !isAnyLeft(each));
    }
  });

  test('comes with the end of its input, even while a question is open, and takes what it made with it', async () => {
    const silent = createServer().listen(join(dir, 'open.qmp'));
    const own = spare.shift()!;
    const client = await clients.shift()!;
    const open = client.request('guest.probe', { name: 'a', qmpPath: join(dir, 'open.qmp'), agentPath: null });
    open.catch(() => {});
    await client.request('host.clock');
    const startMs = performance.now();
    await client[Symbol.asyncDispose]();
    const { exitCode } = await own;
    silent.close();
    expect(exitCode).toBe(0);
    expect(performance.now() - startMs).toBeLessThan(1500);
    await until(() => !isAnyLeft(own));
    expect((await readdir(dir)).filter((name) => !name.endsWith('.qmp'))).toEqual([]);
  });

  test('does not come with a signal to the terminal it was started from', async () => {
    const own = spare.shift()!;
    const client = await clients.shift()!;
    for (const signal of ['SIGINT', 'SIGHUP'] as const) process.kill(own.pid!, signal);
    expect(await client.request<number>('host.clock')).toBeGreaterThan(0);
    process.kill(own.pid!, 'SIGTERM');
    const { exitCode, signal } = await own;
    await client[Symbol.asyncDispose]();
    expect({ exitCode, signal }).toEqual({ exitCode: 0, signal: undefined });
  });
});
