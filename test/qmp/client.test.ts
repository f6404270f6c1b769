import { getEventListeners } from 'node:events';
import net from 'node:net';
import { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { QmpClient, type QmpInterruptedError } from '../../qmp/index.js';
import { FakeServer, GREETING } from './fakeMonitor.js';

const withCode = (code: string) => expect.objectContaining({ code });

describe('QmpClient.connect', () => {
  it('fails with a connect error where nothing listens', async () => {
    await expect(QmpClient.connect({ path: '/nonexistent/qmp.sock' })).rejects.toMatchObject({
      code: 'VMMIG_QMP_CONNECT',
      message: expect.stringContaining('/nonexistent/qmp.sock'),
      cause: expect.objectContaining({ code: 'ENOENT' }),
    });
  });

  it('keeps trying until its deadline when asked to, and says what it met', async () => {
    const connecting = QmpClient.connect({ path: '/nonexistent/qmp.sock' }, { retry: true, timeoutMs: 100 });
    await expect(connecting).rejects.toMatchObject({
      code: 'VMMIG_QMP_CONNECT',
      message: expect.stringMatching(/within 100 ms.*ENOENT/),
    });
  });

  it('connects to a server that starts late when asked to', async () => {
    await using early = await FakeServer.listen();
    const path = `${early.path}.late`;
    const connecting = QmpClient.connect({ path }, { retry: true });
    await delay(60);
    const server = net.createServer((socket) => socket.end(`${JSON.stringify(GREETING)}\n`)).listen(path);
    await expect(connecting).rejects.toMatchObject({ code: 'VMMIG_QMP_GREETING' });
    server.close();
  });

  it('fails with a greeting error when there is no greeting in time, and suggests why', async () => {
    await using server = await FakeServer.listen();
    await expect(QmpClient.connect({ path: server.path }, { timeoutMs: 50 })).rejects.toMatchObject({
      code: 'VMMIG_QMP_GREETING',
      message: expect.stringMatching(/no QMP greeting within 50 ms.*another client/),
    });
  });

  it('fails with a greeting error when the negotiation is not answered in time', async () => {
    await using server = await FakeServer.listen();
    const connecting = QmpClient.connect({ path: server.path }, { timeoutMs: 100 });
    (await server.accept()).send(GREETING);
    await expect(connecting).rejects.toEqual(withCode('VMMIG_QMP_GREETING'));
  });

  it('fails with a greeting error when the peer hangs up, and keeps the reason', async () => {
    await using server = await FakeServer.listen();
    const connecting = QmpClient.connect({ path: server.path });
    (await server.accept()).socket.destroy();
    await expect(connecting).rejects.toMatchObject({
      code: 'VMMIG_QMP_GREETING',
      cause: withCode('VMMIG_QMP_INTERRUPTED'),
    });
  });

  it('fails as interrupted when it is aborted, before or while it waits, and closes the stream', async () => {
    await using server = await FakeServer.listen();
    const abort = new AbortController();
    const connecting = QmpClient.connect({ path: server.path }, { signal: abort.signal });
    const { socket } = await server.accept();
    const reason = new Error('enough');
    abort.abort(reason);
    const interrupted = { code: 'VMMIG_QMP_INTERRUPTED', reason: 'abort', cause: reason };
    await expect(connecting).rejects.toMatchObject(interrupted);
    await new Promise((resolve) => socket.once('close', resolve).resume());

    await expect(QmpClient.connect({ path: server.path }, { signal: abort.signal })).rejects.toMatchObject(interrupted);
    const stream = new net.Socket();
    await expect(QmpClient.connect({ stream }, { signal: abort.signal })).rejects.toMatchObject(interrupted);
    expect(stream.destroyed).toBe(true);
  });

  it('talks over an open stream, also one inside this process that answers before write returns', async () => {
    // Replies are pushed from within write: the session is entered again while it sends.
    let answers = 0;
    const stream: Duplex = new Duplex({
      read() {},
      write(chunk: Buffer, _encoding, done) {
        for (const line of chunk.toString().trim().split('\n')) {
          const { id } = JSON.parse(line) as { id: string };
          stream.push(`${JSON.stringify({ return: answers++, id })}\n`);
        }
        done();
      },
    });
    stream.push(`${JSON.stringify(GREETING)}\n`);
    await using client = await QmpClient.connect({ stream });
    const asked = Array.from({ length: 30 }, (_, index) => client.execute(`x-command-${index}`));
    expect(await Promise.all(asked)).toEqual(asked.map((_, index) => index + 1));
    await client.close();
    expect(stream.destroyed).toBe(true);
    expect(await client.closed).toBeUndefined();
  });
});

describe('QmpClient.execute', () => {
  it('sends arguments as given and gives the reply', async () => {
    await using server = await FakeServer.listen();
    const { client, monitor } = await server.connect();
    const status = client.execute('query-named-block-nodes', { flat: true });
    const request = await monitor.request();
    expect(request).toMatchObject({ execute: 'query-named-block-nodes', arguments: { flat: true } });
    monitor.reply(request, []);
    expect(await status).toEqual([]);
    await client.close();
  });

  it('gives up at the deadline, and the late reply reaches nobody', async () => {
    await using server = await FakeServer.listen();
    const { client, monitor } = await server.connect();
    await expect(client.execute('stop', {}, { timeoutMs: 30 })).rejects.toMatchObject({
      code: 'VMMIG_QMP_INTERRUPTED',
      reason: 'timeout',
      command: 'stop',
      sent: true,
      message: 'stop: no answer within 30 ms',
    });
    const late = await monitor.request();
    const next = client.execute('query-name');
    monitor.reply(late, { name: 'late' });
    monitor.reply(await monitor.request(), { name: 'right' });
    expect(await next).toEqual({ name: 'right' });
    await client.close();
  });

  it('never sends what is aborted while it waits for its turn', async () => {
    await using server = await FakeServer.listen();
    const { client, monitor } = await server.connect();
    const abort = new AbortController();
    const first = Array.from({ length: 8 }, () => client.execute('query-name'));
    const aborted = client.execute('quit', {}, { signal: abort.signal });
    const last = client.execute('query-uuid');
    const requests = await monitor.requests(8);
    abort.abort();
    await expect(aborted).rejects.toMatchObject({ reason: 'abort', sent: false });
    for (const request of requests) monitor.reply(request);
    const next = await monitor.request();
    expect(next.execute).toBe('query-uuid');
    monitor.reply(next, { UUID: 'u' });
    await Promise.all([...first, last]);
    await client.close();
  });

  it('interrupts all commands that share a signal, and none that was answered', async () => {
    await using server = await FakeServer.listen();
    const { client, monitor } = await server.connect();
    const abort = new AbortController();
    const answered = client.execute('query-name', {}, { signal: abort.signal });
    monitor.reply(await monitor.request(), { name: 'vm1' });
    expect(await answered).toEqual({ name: 'vm1' });
    const waiting = [1, 2, 3].map(() => client.execute('query-name', {}, { signal: abort.signal }));
    abort.abort();
    for (const command of waiting) await expect(command).rejects.toMatchObject({ reason: 'abort' });
    await client.close();
  });

  it('sends nothing when its signal is aborted already', async () => {
    await using server = await FakeServer.listen();
    const { client, monitor } = await server.connect();
    const aborted = client.execute('quit', {}, { signal: AbortSignal.abort() });
    await expect(aborted).rejects.toMatchObject({ reason: 'abort', sent: false });
    const next = client.execute('query-name');
    const request = await monitor.request();
    expect(request.execute).toBe('query-name');
    monitor.reply(request);
    await next;
    await client.close();
  });

  it('puts one listener on a signal that many commands share, and leaves none', async () => {
    await using server = await FakeServer.listen();
    const { client, monitor } = await server.connect();
    const { signal } = new AbortController();
    const names = Array.from({ length: 30 }, () => client.execute('query-name', {}, { signal }));
    expect(getEventListeners(signal, 'abort')).toHaveLength(1);
    for (let count = 0; count < 30; count++) monitor.reply(await monitor.request());
    await Promise.all(names);
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
    await client.close();
  });

  it('refuses what cannot be written as JSON, without harm to the connection', async () => {
    await using server = await FakeServer.listen();
    const { client, monitor } = await server.connect();
    await expect(client.execute('x-test', { big: 1n })).rejects.toThrow(TypeError);
    const next = client.execute('query-name');
    monitor.reply(await monitor.request());
    await next;
    await client.close();
  });
});

describe('QmpClient on disconnect', () => {
  it('interrupts commands, waits and event streams with the cause', async () => {
    await using server = await FakeServer.listen();
    const { client, monitor } = await server.connect();
    const command = client.execute('stop');
    const wait = client.waitFor('STOP');
    const events = client.events();
    await monitor.request();
    monitor.event('RESUME');
    monitor.socket.end();
    const interrupted = { code: 'VMMIG_QMP_INTERRUPTED', reason: 'disconnect' };
    await expect(command).rejects.toMatchObject({ ...interrupted, sent: true });
    await expect(wait).rejects.toMatchObject({ ...interrupted, message: expect.stringContaining('STOP') });
    expect(await client.closed).toMatchObject(interrupted);
    expect((await events.next()).value).toMatchObject({ event: 'RESUME' });
    await expect(events.next()).rejects.toMatchObject(interrupted);
    expect(await events.next()).toEqual({ done: true, value: undefined });
  });

  it('interrupts what is asked for afterwards', async () => {
    await using server = await FakeServer.listen();
    const { client, monitor } = await server.connect();
    monitor.socket.destroy();
    const cause = await client.closed;
    const interrupted = { code: 'VMMIG_QMP_INTERRUPTED', reason: 'disconnect', cause };
    await expect(client.execute('stop', {}, { timeoutMs: 3_600_000 })).rejects.toMatchObject({
      ...interrupted,
      sent: false,
    });
    await expect(client.waitFor('STOP', { timeoutMs: 3_600_000 })).rejects.toMatchObject(interrupted);
    await expect(client.events().next()).rejects.toBe(cause);
    await expect(client.schema()).rejects.toMatchObject(interrupted);
  });

  it('leaves no unhandled rejection of a wait that nobody awaits', async () => {
    await using server = await FakeServer.listen();
    const { client, monitor } = await server.connect();
    const unhandled: unknown[] = [];
    const onUnhandled = (reason: unknown) => unhandled.push(reason);
    process.on('unhandledRejection', onUnhandled);
    client.waitFor('STOP');
    client.waitFor('STOP', { timeoutMs: 1 });
    client.waitFor('STOP', { signal: AbortSignal.abort() });
    await delay(10);
    monitor.socket.destroy();
    await client.closed;
    await delay(10);
    process.off('unhandledRejection', onUnhandled);
    expect(unhandled).toEqual([]);
  });

  it('notices that only the peer has ended an open stream', async () => {
    const stream: Duplex = new Duplex({
      read() {},
      write(chunk: Buffer, _encoding, done) {
        const { id } = JSON.parse(chunk.toString()) as { id: string };
        stream.push(`${JSON.stringify({ return: {}, id })}\n`);
        done();
      },
    });
    stream.push(`${JSON.stringify(GREETING)}\n`);
    const client = await QmpClient.connect({ stream });
    stream.push(null);
    expect(await client.closed).toMatchObject({ code: 'VMMIG_QMP_INTERRUPTED', reason: 'disconnect' });
    expect(stream.destroyed).toBe(true);
  });

  it('reports the protocol error that made it hang up', async () => {
    await using server = await FakeServer.listen();
    const { client, monitor } = await server.connect();
    const command = client.execute('stop');
    const events = client.events();
    await monitor.request();
    monitor.socket.write('garbage\r\n');
    const cause = withCode('VMMIG_QMP_PROTOCOL');
    await expect(command).rejects.toMatchObject({ code: 'VMMIG_QMP_INTERRUPTED', cause });
    await expect(events.next()).rejects.toMatchObject({ code: 'VMMIG_QMP_INTERRUPTED', cause });
    expect(await client.closed).toEqual(cause);
  });
});

describe('QmpClient.close', () => {
  it('interrupts commands and waits, ends event streams, and closes the socket', async () => {
    await using server = await FakeServer.listen();
    const { client, monitor } = await server.connect();
    const hungUp = new Promise((resolve) => monitor.socket.once('close', resolve));
    const command = client.execute('stop');
    const wait = client.waitFor('STOP');
    const next = client.events().next();
    const closing = client.close();
    await expect(command).rejects.toMatchObject({ reason: 'closed' });
    await expect(wait).rejects.toMatchObject({ reason: 'closed' });
    expect(await next).toEqual({ done: true, value: undefined });
    await Promise.all([closing, client.close(), hungUp]);
    expect(await client.closed).toBeUndefined();
  });
});

describe('QmpClient events', () => {
  it('filters by name, by names and by predicate, each listener for itself', async () => {
    await using server = await FakeServer.listen();
    const { client, monitor } = await server.connect();
    const all = client.events();
    const stops = client.events('STOP');
    const both = client.events(['STOP', 'RESUME']);
    const even = client.events((event) => Number(event.data.pass) % 2 === 0);
    const last = client.waitFor('POWERDOWN');
    monitor.event('STOP');
    for (let pass = 0; pass < 4; pass++) monitor.event('MIGRATION_PASS', { pass });
    monitor.event('RESUME');
    monitor.event('POWERDOWN');
    await last;
    await client.close();
    const drain = async (events: AsyncIterable<{ event: string }>) => {
      const names: string[] = [];
      for await (const { event } of events) names.push(event);
      return names;
    };
    expect(await drain(all)).toHaveLength(7);
    expect(await drain(stops)).toEqual(['STOP']);
    expect(await drain(both)).toEqual(['STOP', 'RESUME']);
    expect(await drain(even)).toEqual(['MIGRATION_PASS', 'MIGRATION_PASS']);
  });

  it('end with an overflow error after the events that fit', async () => {
    await using server = await FakeServer.listen();
    const { client, monitor } = await server.connect();
    const events = client.events('MIGRATION_PASS', { queueLimit: 2 });
    const last = client.waitFor('STOP');
    for (let pass = 0; pass < 5; pass++) monitor.event('MIGRATION_PASS', { pass });
    monitor.event('STOP');
    await last;
    expect((await events.next()).value?.data).toEqual({ pass: 0 });
    expect((await events.next()).value?.data).toEqual({ pass: 1 });
    await expect(events.next()).rejects.toMatchObject({ code: 'VMMIG_QMP_OVERFLOW', queueLimit: 2 });
    await client.close();
  });

  it('go to readers that wait, in order', async () => {
    await using server = await FakeServer.listen();
    const { client, monitor } = await server.connect();
    const events = client.events('MIGRATION_PASS', { queueLimit: 0 });
    const reading = Promise.all([events.next(), events.next()]);
    for (const pass of [1, 2]) monitor.event('MIGRATION_PASS', { pass });
    expect((await reading).map(({ value }) => value?.data.pass)).toEqual([1, 2]);
    await client.close();
  });

  it('end with the abort, or with the loop that reads them', async () => {
    await using server = await FakeServer.listen();
    const { client, monitor } = await server.connect();
    const abort = new AbortController();
    const aborted = client.events(undefined, { signal: abort.signal }).next();
    abort.abort('enough');
    await expect(aborted).rejects.toMatchObject({ reason: 'abort', cause: 'enough' });
    await expect(client.events('STOP', { signal: abort.signal }).next()).rejects.toMatchObject({ reason: 'abort' });

    const { signal } = new AbortController();
    const events = client.events('STOP', { signal });
    monitor.event('STOP');
    for await (const event of events) {
      expect(event.event).toBe('STOP');
      break;
    }
    expect(await events.next()).toEqual({ done: true, value: undefined });
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
    {
      await using disposed = client.events('STOP', { signal });
      expect(disposed[Symbol.asyncIterator]()).toBe(disposed);
    }
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
    await client.close();
  });

  it('end with the error of a predicate that throws, and only those', async () => {
    await using server = await FakeServer.listen();
    const { client, monitor } = await server.connect();
    const broken = () => {
      throw new Error('broken filter');
    };
    const events = client.events(broken).next();
    const wait = client.waitFor(broken);
    const sound = client.waitFor('STOP');
    monitor.event('STOP');
    await expect(events).rejects.toThrow('broken filter');
    await expect(wait).rejects.toThrow('broken filter');
    await sound;
    await client.close();
  });
});

describe('QmpClient.waitFor', () => {
  it('sees an event that comes before the reply to the command that causes it', async () => {
    await using server = await FakeServer.listen();
    const { client, monitor } = await server.connect();
    const stopped = client.waitFor(['STOP', 'SHUTDOWN']);
    const stop = client.execute('stop');
    const request = await monitor.request();
    monitor.event('STOP');
    monitor.reply(request);
    await stop;
    expect(await stopped).toMatchObject({ event: 'STOP', timestamp: { seconds: 1, microseconds: 2 } });
    await client.close();
  });

  it('gives up at its deadline or on abort', async () => {
    await using server = await FakeServer.listen();
    const { client } = await server.connect();
    const late: Promise<unknown> = client.waitFor('STOP', { timeoutMs: 20 });
    await expect(late).rejects.toMatchObject({
      code: 'VMMIG_QMP_INTERRUPTED',
      reason: 'timeout',
      message: 'waiting for the QMP event STOP: no answer within 20 ms',
    } satisfies Partial<QmpInterruptedError>);
    const abort = new AbortController();
    const aborted = client.waitFor(() => true, { signal: abort.signal });
    abort.abort();
    await expect(aborted).rejects.toMatchObject({ reason: 'abort' });
    await client.close();
  });
});
