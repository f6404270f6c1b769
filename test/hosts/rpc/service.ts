/** A service for the tests to start on a host, as `vmmig host-service` is. Its first argument may make it misbehave. */
import { setTimeout as delay } from 'node:timers/promises';
import { serveRpc } from '../../../hosts/rpc.js';

class ServiceError extends Error {
  override readonly name = 'ServiceError';
  readonly code = 'VMMIG_TEST_FAILURE';
  readonly phase = 'precopy';
  readonly retryable = true;
  readonly ignored = () => {};
}

const [behaviour] = process.argv.slice(2);
if (behaviour === 'noise') console.log('Welcome to this host!');
if (behaviour === 'other-protocol') {
  process.stdout.write('{"service":"vmmig","protocol":99,"version":"9.9.9"}\n');
  process.stdin.resume();
} else if (behaviour === 'crash') {
  console.error('out of luck');
  process.exit(3);
} else {
  process.stderr.write('service started\n');
  let cancelled = 0;
  const server = serveRpc(
    process.stdin,
    process.stdout,
    {
      echo: async (params) => params,
      pid: async () => process.pid,
      nothing: async () => undefined,
      fail: async () => {
        throw new ServiceError('the guest would not move', { cause: new TypeError('deep', { cause: 'deeper' }) });
      },
      throwString: async () => {
        throw 'plain';
      },
      wait: async (_, { signal }) => {
        await server.notify('waiting');
        await delay(60_000, undefined, { signal }).catch(() => {});
        cancelled++;
        return 'too late';
      },
      cancelled: async () => cancelled,
      progress: async () => {
        for (let done = 0; done < 100; done++) await server.notify('progress', { done });
      },
      garbage: async () => {
        process.stdout.write('oops, a stray print\n');
        await delay(60_000);
      },
      exit: async () => {
        process.stderr.write('going down\n', () => process.exit(5));
        await delay(60_000);
      },
    },
    { version: '1.2.3' },
  );
  const reason = await server.closed;
  process.exit(reason ? 4 : 0);
}
