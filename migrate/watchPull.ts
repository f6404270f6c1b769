/**
 * Watches the pull of a switch from both hosts to its end. The hosts need nobody for it: a session that is lost is opened
 * again, for as long as the relays would look for each other, and the services that are at work are asked from there.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { call, type Params, type Pulled, type Results, type SourceSample } from '../host-service/protocol.js';
import type { InventoryHost } from '../hosts/index.js';
import { RemoteError } from '../hosts/rpc.js';
import { toVmmigError, VmmigError } from './errors.js';
import type { Sides } from './prepared.js';
import { openSide, type Side } from './sides.js';
import { type Replaced, takeOver } from './takeOver.js';

export interface WatchedPull {
  /** Those that are open; replaced when a session is lost. */
  readonly sides: Sides;
  readonly hosts: { readonly source: InventoryHost; readonly destination: InventoryHost };
  /** What a service on that host finds the migration by. */
  migrationOn(host: InventoryHost): Params<'source.pulled'>;
  readonly reconnectTimeoutMs: number;
  /** A service had died, and another has taken its place. */
  takenOver?(what: Replaced): void;
}

export interface PullEnd {
  /** Null when the pull ended while nobody watched. */
  readonly pulled: Pulled | null;
  readonly sample: SourceSample | null;
}

const openTimeoutMs = 10_000;
const pauseMs = 1_000;
/** For the news of an end to come from the other host, too. */
const graceMs = 3_000;
/** A destination that still waits so long after the source has let go waits for what is lost. Longer than a session may be silent. */
const concludingMs = 30_000;
const concludeTimeoutMs = 5_000;

/**
 * Resolves when the destination has all of the guest's memory.
 * @throws VmmigError VMMIG_MEMORY_LOST when the source's service has ended before that; RemoteError VMMIG_PULL_STOPPED
 *   when the destination's has, or what made a relay give up; VmmigError VMMIG_HOST_SILENT; the signal's reason
 */
export async function watchPull(watched: WatchedPull, signal?: AbortSignal): Promise<PullEnd> {
  const stop = new AbortController();
  const either = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]);
  let repairing: Promise<unknown> = Promise.resolve();
  // Both services may have died at once, and each is noticed by itself.
  const repair = async () => {
    const repaired = repairing.then(() => replaceServices(watched, either));
    // What the first has found to be lost, another one would find to be unknown.
    repairing = repaired.catch((thrown) => {
      if (isLoss(thrown)) throw thrown;
    });
    repairing.catch(() => {});
    await repaired;
  };
  const whole = follow(watched, 'destination', either, repair, (side, params, limits) =>
    call(side.rpc, 'destination.pulled', params, limits),
  );
  const served = follow(watched, 'source', either, repair, (side, params, limits) =>
    call(side.rpc, 'source.pulled', params, limits),
  );
  for (const promise of [whole, served]) promise.catch(() => {});
  try {
    const pulled = await Promise.race([whole, failureOf(served, watched)]);
    const end = await Promise.race([served.catch(() => null), delay(graceMs, null)]);
    return { pulled, sample: end?.sample ?? null };
  } catch (thrown) {
    if (isLoss(thrown)) await conclude(watched);
    throw thrown;
  } finally {
    stop.abort();
  }
}

/** Rejects when serving has ended and the destination has not said meanwhile that it has everything. */
async function failureOf(served: Promise<Results['source.pulled']>, { sides, hosts }: WatchedPull): Promise<never> {
  const end = await served.catch(async (error) => {
    await delay(graceMs);
    throw error;
  });
  if (end !== null) return await new Promise<never>(() => {});
  // A destination that cannot be asked may have concluded.
  for (let askedMs = 0; askedMs < concludingMs; askedMs = sides.destination === null ? 0 : askedMs + pauseMs)
    await delay(pauseMs);
  throw memoryLost(`vmmig on ${hosts.source.name} has nothing left of the guest's memory`);
}

/** What one host still has of the guest is of no use to the other: nothing is to be left of it once the guest has ended. */
async function conclude({ sides, hosts, migrationOn }: WatchedPull): Promise<void> {
  const { source, destination } = sides;
  const { runDir, migrationId } = migrationOn(hosts.source);
  const limits = { timeoutMs: concludeTimeoutMs };
  // What cannot be told now is told by the next `recover`.
  await Promise.allSettled([
    source && call(source.rpc, 'source.reconnect', { runDir, migrationId, endpoint: null }, limits),
    destination && call(destination.rpc, 'destination.conclude', migrationOn(hosts.destination), limits),
  ]);
}

async function follow<T>(
  watched: WatchedPull,
  which: 'source' | 'destination',
  signal: AbortSignal,
  repair: () => Promise<void>,
  ask: (side: Side, params: Params<'source.pulled'>, limits: { signal: AbortSignal }) => Promise<T>,
): Promise<T> {
  const { sides, hosts, migrationOn, reconnectTimeoutMs } = watched;
  let lostAtMs: number | null = null;
  let isBroken = false;
  let repairs = 0;
  for (;;) {
    try {
      sides[which] ??= await openSide(hosts[which], AbortSignal.any([signal, AbortSignal.timeout(openTimeoutMs)]));
      lostAtMs = null;
      if (isBroken) {
        if (repairs++ > 0) await delay(pauseMs, undefined, { signal });
        await repair();
        isBroken = false;
      }
      return await ask(sides[which], migrationOn(hosts[which]), { signal });
    } catch (thrown) {
      signal.throwIfAborted();
      if (isStopped(thrown) && !isBroken) {
        isBroken = true;
        continue;
      }
      // An answer, unlike all else that may happen to a session.
      if (thrown instanceof RemoteError || thrown instanceof VmmigError) throw thrown;
      await sides[which]?.leave();
      sides[which] = null;
      lostAtMs ??= performance.now();
      if (performance.now() - lostAtMs > reconnectTimeoutMs) throw silent(hosts[which], thrown);
      await delay(pauseMs, undefined, { signal });
    }
  }
}

/**
 * A service has died: this session's takes its place, and the guest goes on.
 * @throws VmmigError VMMIG_MEMORY_LOST when it cannot
 */
async function replaceServices(watched: WatchedPull, signal: AbortSignal): Promise<void> {
  const { sides, hosts, migrationOn, reconnectTimeoutMs } = watched;
  const { guest, migrationId } = migrationOn(hosts.destination);
  const startMs = performance.now();
  while (performance.now() - startMs < reconnectTimeoutMs) {
    const { source, destination } = sides;
    // The other session is opened again elsewhere.
    if (source !== null && destination !== null) {
      const replaced = await takeOver({ source, destination }, guest, migrationId).catch((thrown) =>
        explainLoss(thrown, hosts.source),
      );
      if (replaced.source || replaced.destination) watched.takenOver?.(replaced);
      return;
    }
    await delay(pauseMs, undefined, { signal });
  }
  throw silent(sides.source === null ? hosts.source : hosts.destination, new Error('no session'));
}

function silent({ name }: InventoryHost, cause: unknown): VmmigError {
  const message = `${name} could not be reached again: ${(cause as Error).message}`;
  return new VmmigError('VMMIG_HOST_SILENT', message, { phase: 'pull', vmLocation: 'destination', cause });
}

export function isLoss(thrown: unknown): boolean {
  return toVmmigError(thrown).code === 'VMMIG_MEMORY_LOST';
}

function isStopped(thrown: unknown): boolean {
  return thrown instanceof RemoteError && thrown.code === 'VMMIG_PULL_STOPPED';
}

function explainLoss(thrown: unknown, source: InventoryHost): never {
  const isLost = thrown instanceof RemoteError && thrown.code === 'VMMIG_MEMORY_LOST';
  if (!isLost || thrown.host !== source.name) throw thrown;
  throw memoryLost(`vmmig on ${thrown.host}, which held the rest of the guest's memory, has ended`, thrown);
}

function memoryLost(message: string, cause?: unknown): VmmigError {
  return new VmmigError('VMMIG_MEMORY_LOST', message, { phase: 'pull', vmLocation: 'destination', cause });
}
