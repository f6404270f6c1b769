/** The two hosts of a migration, each with a session and vmmig's service on it. */
import { call } from '../host-service/protocol.js';
import {
  type HostService,
  type HostSession,
  type InventoryHost,
  openHostSession,
  startHostService,
} from '../hosts/index.js';
import type { RpcClient } from '../hosts/rpc.js';
import { version } from './version.js';

export interface Side extends AsyncDisposable {
  readonly host: InventoryHost;
  readonly rpc: RpcClient;
  /** What it took to log in to the host: four round trips at least. Next to nothing on this machine. */
  readonly loginMs: number;
  /** What the session put on the network, 0 on this machine. */
  bytesOnWire(): number;
  /** Asked for once, and not waited for. */
  readonly clock: Promise<Clock>;
  /**
   * Ends the session and leaves the service to its own end: disposing of the side would kill one that does not end at
   * once, and after a switch the guest's memory may be in it.
   */
  leave(): Promise<void>;
}

export interface Clock {
  /** What must be subtracted from the host's clock to get this machine's. */
  readonly offsetMs: number;
  /** Of the call that asked. */
  readonly rttMs: number;
}

const askIntervalMs = 3_000;

/**
 * Logs in to a host and starts the service there.
 * @param silenceLimitMs - how long the session may be silent; what is usual, when left open
 */
export async function openSide(host: InventoryHost, signal?: AbortSignal, silenceLimitMs?: number): Promise<Side> {
  const side = await openSideAhead(host, signal, silenceLimitMs);
  try {
    await side.rpc.greeted;
  } catch (thrown) {
    await side[Symbol.asyncDispose]();
    throw thrown;
  }
  return side;
}

/** As {@link openSide}, before the service is up: what it is asked for meanwhile saves a round trip. */
export async function openSideAhead(host: InventoryHost, signal?: AbortSignal, silenceLimitMs?: number): Promise<Side> {
  const startMs = performance.now();
  const session: HostSession = await openHostSession(host, {
    ...(signal === undefined ? {} : { signal }),
    ...(silenceLimitMs === undefined ? {} : { silenceLimitMs }),
  });
  const loginMs = performance.now() - startMs;
  let service: HostService;
  try {
    service = await startHostService(session, host.vmmig, {
      version: version(),
      ...(signal === undefined ? {} : { signal }),
    });
  } catch (thrown) {
    await session[Symbol.asyncDispose]();
    throw thrown;
  }
  // An answer that has waited for the service to start would tell another time.
  const clock = service.rpc.greeted.then(() => compareClocks(service.rpc));
  clock.catch(() => {});
  // The service gives up a caller that has asked for nothing for long: it cannot tell it from one that is lost.
  const timer = setInterval(() => call(service.rpc, 'host.clock', {}).catch(() => {}), askIntervalMs);
  timer.unref();
  return {
    host,
    rpc: service.rpc,
    clock,
    loginMs,
    bytesOnWire: () => session.bytesOnWire(),
    async leave() {
      clearInterval(timer);
      await service.rpc[Symbol.asyncDispose]();
      service.process.stdin.end();
    },
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      await service[Symbol.asyncDispose]();
      await session[Symbol.asyncDispose]();
    },
  };
}

async function compareClocks(rpc: RpcClient): Promise<Clock> {
  const startMs = performance.now();
  const remoteMs = await call(rpc, 'host.clock', {});
  const rttMs = performance.now() - startMs;
  return { rttMs, offsetMs: remoteMs - (Date.now() - rttMs / 2) };
}
