import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { connectRpc, type RpcHandler, serveRpc } from '../../../hosts/rpc.js';

const HELLO = '{"service":"vmmig","protocol":1,"version":"x"}\n';

function start(handlers: Record<string, RpcHandler>) {
  const stdin = new PassThrough();
  const stdout = new PassThrough();
  return { stdin, stdout, server: serveRpc(stdin, stdout, handlers, { version: '1.0.0' }) };
}

describe('a server', () => {
  test('greets at once, without waiting for the caller', async () => {
    const { stdout, server } = start({});
    const [line] = await once(stdout, 'data');
    expect(JSON.parse(String(line))).toEqual({ service: 'vmmig', protocol: 1, version: '1.0.0' });
    await server[Symbol.asyncDispose]();
  });

  test('ends when its stdin does, after aborting what is under way', async () => {
    let signal: AbortSignal | undefined;
    const { stdin, stdout, server } = start({
      wait: (_, context) =>
        new Promise(() => {
          signal = context.signal;
        }),
    });
    const client = await connectRpc(stdout, stdin);
    client.request('wait').catch(() => {});
    await client.request('unknown').catch(() => {});
    stdin.end();
    expect(await server.closed).toBeUndefined();
    expect(signal?.aborted).toBe(true);
  });

  test('ends when the caller leaves before the handshake', async () => {
    const { stdin, server } = start({});
    stdin.end();
    expect(await server.closed).toBeUndefined();
  });

  test.each(['GET / HTTP/1.1\n', '{"service":"vmmig","protocol":2,"version":"x"}\n', '{}\n'])(
    'refuses a caller that is not vmmig of its protocol: %j',
    async (line) => {
      let called = false;
      const { stdin, server } = start({
        act: async () => {
          called = true;
        },
      });
      stdin.write(`${line}{"jsonrpc":"2.0","id":1,"method":"act","params":{}}\n`);
      expect(await server.closed).toMatchObject({ code: 'VMMIG_HOST_INCOMPATIBLE' });
      expect(called).toBe(false);
    },
  );

  test('serves a caller that sends its first request along with the handshake', async () => {
    const { stdin, stdout } = start({ echo: async (params) => params });
    stdin.write(`${HELLO}{"jsonrpc":"2.0","id":1,"method":"echo","params":{"a":1}}\n`);
    await once(stdout, 'data');
    const [answer] = await once(stdout, 'data');
    expect(JSON.parse(String(answer))).toEqual({ jsonrpc: '2.0', id: 1, result: { a: 1 } });
  });

  test('drops notifications before the handshake and after the end', async () => {
    const { stdin, stdout, server } = start({});
    await server.notify('early');
    stdin.write(HELLO);
    stdin.end();
    await server.closed;
    await server.notify('late');
    stdout.end();
    expect(String(stdout.read()).split('\n')).toHaveLength(2);
  });
});

describe('a client', () => {
  test('gives the reason of its own that the streams ended for', async () => {
    const { stdin, stdout } = start({ wait: () => new Promise(() => {}) });
    const reason = new Error('the cable was cut');
    const client = await connectRpc(stdout, stdin, { whyEnded: async () => reason });
    const pending = client.request('wait');
    stdout.end();
    await expect(pending).rejects.toBe(reason);
    expect(await client.closed).toBe(reason);
  });

  test('gives it also when its stream broke, as a process that is killed has it', async () => {
    const { stdin, stdout } = start({ wait: () => new Promise(() => {}) });
    const reason = new Error('the cable was cut');
    const client = await connectRpc(stdout, stdin, { whyEnded: async () => reason });
    const pending = client.request('wait');
    stdout.destroy(new Error('read ECONNRESET'));
    await expect(pending).rejects.toBe(reason);
  });

  test('keeps requests that are made while it finds out why the streams ended until it knows', async () => {
    const { stdin, stdout } = start({});
    const reason = new Error('the cable was cut');
    const client = await connectRpc(stdout, stdin, {
      whyEnded: () => new Promise((resolve) => setTimeout(resolve, 50, reason)),
    });
    stdout.end();
    await once(stdout, 'close');
    await expect(client.request('anything')).rejects.toBe(reason);
    await client.notify('anything');
  });

  test('rejects parameters that cannot be sent, and goes on', async () => {
    const { stdin, stdout } = start({ echo: async (params) => params });
    await using client = await connectRpc(stdout, stdin);
    await expect(client.request('echo', { big: 1n })).rejects.toThrow('the parameters of "echo" cannot be sent');
    expect(await client.request('echo', { small: 1 })).toEqual({ small: 1 });
  });

  test('does not mind a method that is cancelled before it was begun', async () => {
    let begun = 0;
    const { stdin, stdout } = start({ count: async () => ++begun });
    await using client = await connectRpc(stdout, stdin);
    const abort = new AbortController();
    const cancelled = client.request('count', {}, { signal: abort.signal });
    abort.abort(new Error('enough'));
    await expect(cancelled).rejects.toThrow('enough');
    expect(await client.request('count')).toBeLessThanOrEqual(2);
  });

  test('notices a stream that is destroyed without an end', async () => {
    const { stdin, stdout } = start({ wait: () => new Promise(() => {}) });
    const client = await connectRpc(stdout, stdin, { host: 'hostB' });
    const pending = client.request('wait');
    stdout.destroy();
    await expect(pending).rejects.toMatchObject({ code: 'VMMIG_HOST_SERVICE_ENDED', host: 'hostB' });
  });
});
