/** `vmmig host-service`: answers one caller on stdio, and puts everything back when the caller is gone. */
import { type RpcHandler, serveRpc } from '../hosts/rpc.js';
import { checkDestination } from '../hypervisor/index.js';
import { hostChecks } from './checks.js';
import { DestinationSide } from './destinationSide.js';
import { probeGuest } from './probe.js';
import { type Method, methodParams, type Params, type Results } from './protocol.js';
import { ServiceError } from './serviceError.js';
import { SourceSide } from './sourceSide.js';

type Handlers = { [M in Method]: (params: Params<M>, signal: AbortSignal) => Promise<Results[M]> };

/** Serves until stdin ends. */
export async function serve(version: string): Promise<void> {
  const source = new SourceSide((sample) => void server.notify('source.sample', sample));
  const destination = new DestinationSide((sample) => void server.notify('destination.sample', sample));
  const handlers: Handlers = {
    'host.clock': async () => Date.now(),
    'host.checks': () => hostChecks(),
    'guest.probe': (guest, signal) => probeGuest(guest, signal),
    'source.inspect': (guest, signal) => source.inspect(guest, signal),
    'source.scan': (params, signal) => source.scan(params, signal),
    'source.connect': (params) => source.connect(params),
    'source.start': (_, signal) => source.start(signal),
    'source.switchOver': (_, signal) => source.switchOver(signal),
    'source.finished': (_, signal) => source.finished(signal),
    'source.hold': async () => source.hold(),
    'source.rollback': (guest, signal) => source.rollback(guest, signal),
    'source.release': (guest, signal) => source.release(guest, signal),
    'destination.check': (plan, signal) => checkDestination(plan, { signal }),
    'destination.start': (params, signal) => destination.start(params, signal),
    'destination.listen': (params) => destination.listen(params),
    'destination.finished': (_, signal) => destination.finished(signal),
    'destination.commit': () => destination.commit(),
    'destination.resolve': (params, signal) => destination.resolve(params, signal),
    'destination.rollback': (params) => destination.rollback(params),
  };
  // The caller's end, not a signal to its process group, is what ends the service.
  for (const signal of ['SIGINT', 'SIGHUP', 'SIGPIPE'] as const) process.on(signal, () => {});
  await using server = serveRpc(process.stdin, process.stdout, checked(handlers), { version });
  const terminated = new Promise<void>((resolve) => process.once('SIGTERM', () => resolve()));
  await Promise.race([server.closed, terminated]);
  await Promise.allSettled([source[Symbol.asyncDispose](), destination[Symbol.asyncDispose]()]);
}

function checked(handlers: Handlers): Record<string, RpcHandler> {
  return Object.fromEntries(
    Object.entries(handlers).map(([method, handler]) => {
      const checkedHandler: RpcHandler = async (params, { signal }) => {
        const parsed = methodParams[method as Method].safeParse(params);
        if (!parsed.success) throw new ServiceError('VMMIG_SERVICE_PARAMS', `${method}: ${parsed.error.message}`);
        return await (handler as (params: unknown, signal: AbortSignal) => Promise<unknown>)(parsed.data, signal);
      };
      return [method, checkedHandler];
    }),
  );
}
