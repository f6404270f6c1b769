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
  /** What the session put on the network, 0 on this machine. */
  bytesOnWire(): number;
  /** What must be subtracted from the host's clock to get this machine's. */
  readonly clockOffsetMs: number;
  /** Of a call to the service. */
  readonly rttMs: number;
}

const askIntervalMs = 3_000;

/** Logs in to a host and starts the service there. */
export async function openSide(host: InventoryHost, signal?: AbortSignal): Promise<Side> {
  const session: HostSession = await openHostSession(host, signal === undefined ? {} : { signal });
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
  const startMs = performance.now();
  const remoteMs = await call(service.rpc, 'host.clock', {});
  const rttMs = performance.now() - startMs;
  // The service gives up a caller that has asked for nothing for long: it cannot tell it from one that is lost.
  const timer = setInterval(() => call(service.rpc, 'host.clock', {}).catch(() => {}), askIntervalMs);
  timer.unref();
  return {
    host,
    rpc: service.rpc,
    rttMs,
    clockOffsetMs: remoteMs - (Date.now() - rttMs / 2),
    bytesOnWire: () => session.bytesOnWire(),
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      await service[Symbol.asyncDispose]();
      await session[Symbol.asyncDispose]();
    },
  };
}
