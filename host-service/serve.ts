/** `vmmig host-service`: answers one caller on stdio, and puts everything back when the caller is gone. */
import { setTimeout as delay } from 'node:timers/promises';
import { isWaitingForStorage } from '../disk/index.js';
import { type RpcHandler, serveRpc } from '../hosts/rpc.js';
import { checkDestination, checkDomainDestination, checkSourceDirectory } from '../hypervisor/index.js';
import { hostChecks } from './checks.js';
import { DestinationSide } from './destinationSide.js';
import { compareDisks, diskWriters, sampleDisks } from './diskProof.js';
import { collectLessOften } from './garbageCollection.js';
import { knownDomains } from './guest/probeDomain.js';
import { hostedMigrations } from './hostedMigrations.js';
import { probeGuest } from './probe.js';
import { type Method, methodParams, type Params, type Results } from './protocol.js';
import { ServiceError } from './serviceError.js';
import { SourceSide } from './sourceSide.js';

type Handlers = { [M in Method]: (params: Params<M>, signal: AbortSignal) => Promise<Results[M]> };

/** What is being done when the caller is lost has so long to find its end before things are put back. */
const settleTimeoutMs = 12_000;

/** Serves until stdin ends, the caller falls silent, or SIGTERM. */
export async function serve(version: string): Promise<void> {
  collectLessOften();
  const source = new SourceSide((sample) => void server.notify('source.sample', sample));
  const destination = new DestinationSide((sample) => void server.notify('destination.sample', sample));
  const handlers: Handlers = {
    'host.clock': async () => Date.now(),
    'host.checks': () => hostChecks(),
    'host.migrations': ({ runDir }) => hostedMigrations(runDir),
    'host.domains': (_, signal) => knownDomains(signal),
    'guest.probe': (guest, signal) => probeGuest(guest, signal),
    'source.inspect': (guest, signal) => source.inspect(guest, signal),
    'source.check': ({ runDir }) => checkSourceDirectory(runDir),
    'source.scan': (params, signal) => source.scan(params, signal),
    'source.sampleDisks': (params, signal) => sampleDisks(params, signal),
    'source.listen': (params) => source.listen(params),
    'source.skipDisks': async (params) => source.skipDisks(params),
    'source.connect': (params, signal) => source.connect(params, signal),
    'source.start': (params, signal) => source.start(params, signal),
    'source.switchOver': (_, signal) => source.switchOver(signal),
    'source.keepUp': async () => source.keepUp(),
    'source.allowDowntime': (params, signal) => source.allowDowntime(params, signal),
    'source.throttle': (_, signal) => source.throttle(signal),
    'source.switched': (_, signal) => source.switched(signal),
    'source.pulled': (migration, signal) => source.pulled(migration, signal),
    'source.post': ({ event, ...migration }) => source.post(migration, event),
    'destination.ask': (params) => destination.ask(params),
    'destination.conclude': (migration) => destination.conclude(migration),
    'destination.takeOver': (migration, signal) => destination.takeOver(migration, signal),
    'source.takeOver': (migration, signal) => source.takeOver(migration, signal),
    'source.reconnect': (params) => source.reconnect(params),
    'source.finished': (_, signal) => source.finished(signal),
    'source.hold': () => source.hold(),
    'destination.check': (plan, signal) => checkDestination(plan, { signal }),
    'destination.checkDomain': (plan, signal) => checkDomainDestination(plan, { signal }),
    'destination.compareDisks': (params, signal) => compareDisks(params, signal),
    'destination.diskWriters': (params) => diskWriters(params),
    'destination.start': (params, signal) => destination.start(params, signal),
    'destination.expect': (params, signal) => destination.expect(params, signal),
    'destination.listen': (params) => destination.listen(params),
    'destination.switched': (_, signal) => destination.switched(signal),
    'destination.pulled': (migration, signal) => destination.pulled(migration, signal),
    'destination.finished': (_, signal) => destination.finished(signal),
    'destination.commit': () => destination.commit(),
  };
  // The caller's end, not a signal to its process group, is what ends the service.
  for (const signal of ['SIGINT', 'SIGHUP', 'SIGPIPE'] as const) process.on(signal, () => {});
  const requests = new Requests(() => Math.max(source.silenceLimitMs, destination.silenceLimitMs));
  await using server = serveRpc(process.stdin, process.stdout, checked(handlers, requests), { version });
  // For good: a guest that has been handed over needs this process, however often it is told to go.
  const terminated = new Promise<void>((resolve) => process.on('SIGTERM', () => resolve()));
  await Promise.race([server.closed, terminated, requests.silence]);
  // Aborts what is under way; putting things back in the middle of it would leave behind what it is about to make.
  await server[Symbol.asyncDispose]();
  await Promise.race([requests.settled(), delay(settleTimeoutMs)]);
  // After a switch the guest needs this service, whoever has asked for it.
  await Promise.all([source.settled(), destination.settled()]);
  await Promise.allSettled([source[Symbol.asyncDispose](), destination[Symbol.asyncDispose]()]);
  // Node.js would wait for it, too, and for how long nobody knows.
  if (isWaitingForStorage()) process.kill(process.pid, 'SIGKILL');
}

/** What is asked, and when last. */
class Requests {
  readonly #underWay = new Set<Promise<unknown>>();
  #lastAtMs = performance.now();
  /** The caller is gone, even if the network has not said so: it asks all the time. */
  readonly silence: Promise<void>;

  constructor(silenceLimitMs: () => number) {
    this.silence = new Promise((resolve) => {
      setInterval(() => {
        if (performance.now() - this.#lastAtMs > silenceLimitMs()) resolve();
      }, 1000).unref();
    });
  }

  async during<T>(work: () => Promise<T>): Promise<T> {
    this.#lastAtMs = performance.now();
    const request = work();
    this.#underWay.add(request);
    try {
      return await request;
    } finally {
      this.#underWay.delete(request);
    }
  }

  async settled(): Promise<void> {
    await Promise.allSettled(this.#underWay);
  }
}

function checked(handlers: Handlers, requests: Requests): Record<string, RpcHandler> {
  return Object.fromEntries(
    Object.entries(handlers).map(([method, handler]) => {
      const checkedHandler: RpcHandler = (params, { signal }) =>
        requests.during(async () => {
          const parsed = methodParams[method as Method].safeParse(params);
          if (!parsed.success) throw new ServiceError('VMMIG_SERVICE_PARAMS', `${method}: ${parsed.error.message}`);
          return await (handler as (params: unknown, signal: AbortSignal) => Promise<unknown>)(parsed.data, signal);
        });
      return [method, checkedHandler];
    }),
  );
}
