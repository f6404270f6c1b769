/**
 * Brings a switch to its end that nobody watches: finds out where the guest is, and where it runs on the destination and
 * still needs memory, watches the pull. The services pull by themselves, so leaving costs nothing but sight of it.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { call, type HostedMigration } from '../host-service/protocol.js';
import type { InventoryHost } from '../hosts/index.js';
import { RemoteError } from '../hosts/rpc.js';
import { toVmmigError, VmmigError } from './errors.js';
import { addressOf } from './locate.js';
import { outcome } from './outcome.js';
import type { Recovery } from './recovery.js';
import type { MigrationReport } from './report.js';
import { resolve } from './resolve.js';
import { openSide, type Side } from './sides.js';
import { takeOver } from './takeOver.js';
import { tally } from './tally.js';
import { pageBytes } from './units.js';
import { watchPull } from './watchPull.js';

const openTimeoutMs = 10_000;
const askTimeoutMs = 20_000;
/** For the session with a host that is lost during the pull to come back. */
const reconnectTimeoutMs = 60_000;
const watchIntervalMs = 500;
const limits = { timeoutMs: askTimeoutMs };

export async function recoverSwitch(recovery: Recovery): Promise<MigrationReport> {
  const { recorder, unfinished, before } = recovery;
  const { vm, to } = unfinished;
  if (unfinished.parts.length === 0) return await judgeByGuest(recovery);
  const failures: unknown[] = [];
  // What cannot be replaced is looked at like everything else.
  if (needsTakeOver(recovery)) await replaceServices(recovery).catch((thrown) => failures.push(thrown));
  const end = await recorder.during('switch-over', () =>
    resolve({
      postToSource: async (event) => {
        const params = { ...partOn(recovery, unfinished.from), event };
        return (await ask(recovery, 'source', failures, ({ rpc }) => call(rpc, 'source.post', params, limits))).state;
      },
      askDestination: async () => {
        const params = partOn(recovery, to);
        return (await ask(recovery, 'destination', failures, ({ rpc }) => call(rpc, 'destination.ask', params, limits)))
          .state;
      },
    }),
  );
  const { result, vmLocation } = outcome({ end, cancelled: false, mayBeHeld: true, complete: false });
  if (vmLocation === 'destination') return await watchToTheEnd(recovery);
  if (vmLocation === 'source') return await recorder.finish(result, vmLocation, stayed(recovery));
  const why = failures.length === 0 ? '' : `: ${failures.map((failure) => toVmmigError(failure).message).join('; ')}`;
  const text = `whether ${vm} runs on ${to.name} could not be found out${why}`;
  const cause = before?.error?.code ?? 'VMMIG_UNRESOLVED';
  return await recorder.finish(result, vmLocation, new VmmigError(cause, text, { vmLocation, retryable: true }));
}

/** The guest was let run on the destination, and on one host nobody is there any more who brings it memory. */
function needsTakeOver({ unfinished }: Recovery): boolean {
  const partOf = (role: 'source' | 'destination') =>
    unfinished.parts.find(({ hosted: { ledger } }) => ledger.role === role)?.hosted;
  const [source, destination] = [partOf('source'), partOf('destination')];
  const isOrphaned = (hosted: HostedMigration | undefined) =>
    hosted?.source === null && hosted.destination === null && !hosted.isBusy && !hosted.isFromBefore;
  return destination?.decision === 'run' && (isOrphaned(source) || isOrphaned(destination));
}

/** First of all: until it has memory again, the destination's QEMU may not be able to answer. */
async function replaceServices(recovery: Recovery): Promise<void> {
  const { unfinished } = recovery;
  const { guest, migrationId } = partOn(recovery, unfinished.to);
  await ask(recovery, 'source', [], async (source) => {
    await ask(recovery, 'destination', [], (destination) => takeOver({ source, destination }, guest, migrationId));
  });
}

/**
 * Asks a host, over a new session when there is none.
 * @param failures - gets what an answer is missing for
 */
async function ask<T>(
  { sides, unfinished }: Recovery,
  which: 'source' | 'destination',
  failures: unknown[],
  work: (side: Side) => Promise<T>,
): Promise<T> {
  try {
    const host = which === 'source' ? unfinished.from : unfinished.to;
    sides[which] ??= await openSide(host, AbortSignal.timeout(openTimeoutMs));
    return await work(sides[which]);
  } catch (thrown) {
    failures.push(thrown);
    if (!(thrown instanceof RemoteError)) {
      await sides[which]?.leave();
      sides[which] = null;
    }
    throw thrown;
  }
}

/** What a service on that host finds its part by. */
function partOn({ unfinished, guest }: Recovery, { name: host, runDir }: InventoryHost) {
  const ledger = unfinished.parts.find((part) => part.host.name === host)?.hosted.ledger;
  const { name, qmpPath, agentPath } = ledger?.guest ?? addressOf(guest);
  return { migrationId: unfinished.id, runDir, guest: { name, qmpPath, agentPath } };
}

/** The guest runs on the source: why it was not moved, as far as that is known. */
function stayed({ before, unfinished }: Recovery): VmmigError {
  const { code, message } = before?.error ?? {
    code: 'VMMIG_GIVEN_UP',
    message: `the migration had not come to its commit point, and ${unfinished.vm} goes on where it was`,
  };
  return new VmmigError(code, message, { phase: before?.error?.phase ?? null });
}

async function watchToTheEnd(recovery: Recovery): Promise<MigrationReport> {
  const { recorder, leave, unfinished, sides } = recovery;
  const { from: source, to: destination } = unfinished;
  const ended = new AbortController();
  const watched = {
    sides,
    hosts: { source, destination },
    migrationOn: (host: InventoryHost) => partOn(recovery, host),
    reconnectTimeoutMs,
  };
  try {
    void sampleUntil(ended.signal, recovery);
    const { pulled } = await recorder.during('pull', () => watchPull(watched, leave));
    recorder.facts = {
      ...recorder.facts,
      verified: pulled === null || pulled.hasTakenOver ? null : true,
      faults: pulled?.faults ?? recorder.facts.faults,
    };
    return await recorder.finish('moved', 'destination', null);
  } catch (thrown) {
    const { code, message } = leave?.aborted
      ? { code: 'VMMIG_LEFT', message: 'The command was made to end' }
      : toVmmigError(thrown);
    const text = `${message}. ${unfinished.vm} runs on ${destination.name} and may still need memory from ${source.name}`;
    const error = new VmmigError(code, text, { phase: 'pull', vmLocation: 'destination' });
    return await recorder.finish('interrupted', 'destination', error);
  } finally {
    ended.abort();
  }
}

/** Tells as progress what the services that are at work say when they are asked. */
async function sampleUntil(signal: AbortSignal, recovery: Recovery): Promise<void> {
  const { unfinished, sides } = recovery;
  const askFor = async (side: Side, role: 'source' | 'destination') => {
    const found = await call(side.rpc, 'host.migrations', { runDir: side.host.runDir }, { signal, ...limits });
    return found.find(({ ledger }) => ledger.migrationId === unfinished.id && ledger.role === role);
  };
  while (!signal.aborted) {
    const { source, destination } = sides;
    if (source !== null && destination !== null) {
      try {
        const [sending, receiving] = await Promise.all([askFor(source, 'source'), askFor(destination, 'destination')]);
        const { offsetMs } = await destination.clock;
        if (!signal.aborted) tell(recovery, sending?.source ?? null, receiving?.destination ?? null, offsetMs);
      } catch {
        // What is wrong is told by the wait for the end.
      }
    }
    await delay(watchIntervalMs, undefined, { signal }).catch(() => {});
  }
}

function tell(
  { recorder, before }: Recovery,
  sending: HostedMigration['source'],
  receiving: HostedMigration['destination'],
  offsetMs: number,
): void {
  if (sending === null || receiving === null) return;
  const { counters, remaining } = sending;
  const { zero, teleported, sent, mismatched } = counters.pages;
  const runsSinceMs = receiving.resumedAtMs === null ? null : receiving.resumedAtMs - offsetMs;
  recorder.sample({
    totalPages: counters.totalPages,
    pages: { zero, teleported, sent, mismatched, restored: receiving.counters.pages.restored },
    bytes: { wire: sending.bytesOnWire, stream: counters.bytes.stream, restored: receiving.counters.bytes.restored },
    wireBps: 0,
    dirtyBytesPerSecond: null,
    remainingBytes: remaining.bytesPages * pageBytes,
    etaMs: null,
    pull: {
      runningMs: runsSinceMs === null ? 0 : Math.max(0, Math.round(Date.now() - runsSinceMs)),
      neededBytes: remaining.bytesPages * pageBytes,
      missingPages: receiving.missingPages,
      faults: receiving.faults,
      isConnected: sending.isConnected,
      reconnects: sending.reconnects,
    },
  });
  recorder.facts = { ...recorder.facts, faults: receiving.faults };
  if (before !== null) return;
  const { counters: restored, bytesOnWire } = receiving;
  recorder.facts = {
    ...recorder.facts,
    ...tally(sending, { counters: restored, bytesOnWire }, []),
  };
}

/** Neither host keeps anything of it: it is over, and the guest is where it runs. */
async function judgeByGuest(recovery: Recovery): Promise<MigrationReport> {
  const { recorder, guest, unfinished, before } = recovery;
  const runsOn = async (which: 'source' | 'destination') => {
    const address = { ...addressOf(guest), noAgent: true };
    const probing = ask(recovery, which, [], ({ rpc }) => call(rpc, 'guest.probe', address, limits));
    return await probing.then(
      ({ state }) => state === 'running',
      () => null,
    );
  };
  const [there, here] = await Promise.all([runsOn('destination'), runsOn('source')]);
  if (there === true && here === false) return await recorder.finish('moved', 'destination', null);
  if (here === true && there === false) return await recorder.finish('failed', 'source', stayed(recovery));
  const { vm, from, to } = unfinished;
  const code = before?.error?.code ?? 'VMMIG_UNRESOLVED';
  const text = `neither ${from.name} nor ${to.name} keeps anything of this migration, and which of them runs ${vm} could not be told`;
  return await recorder.finish('unknown', 'unknown', new VmmigError(code, text, { vmLocation: 'unknown' }));
}
