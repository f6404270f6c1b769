/**
 * Brings a switch to its end that nobody watches: finds out where the guest is, and where it runs on the destination and
 * still needs memory, watches the pull. The services pull by themselves, so leaving costs nothing but sight of it.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { call, type HostedMigration } from '../host-service/protocol.js';
import type { InventoryHost } from '../hosts/index.js';
import { toVmmigError, VmmigError } from './errors.js';
import type { Recovery } from './recovery.js';
import type { MigrationReport } from './report.js';
import { ask, forget, partOn, settle } from './settle.js';
import type { Side } from './sides.js';
import { takeOver } from './takeOver.js';
import { tally } from './tally.js';
import { pageBytes } from './units.js';
import { isLoss, watchPull } from './watchPull.js';

const askTimeoutMs = 20_000;
/** For the session with a host that is lost during the pull to come back. */
const reconnectTimeoutMs = 60_000;
const watchIntervalMs = 500;
const limits = { timeoutMs: askTimeoutMs };

export async function recoverSwitch(recovery: Recovery): Promise<MigrationReport> {
  const { vm } = recovery.unfinished;
  if (isLost(recovery)) return await finishLost(recovery, `what ${vm} still needed is nowhere any more`);
  const failures: unknown[] = [];
  // What cannot be replaced is looked at like everything else.
  if (needsTakeOver(recovery)) await replaceServices(recovery).catch((thrown) => failures.push(thrown));
  const settled = await settle(recovery, failures);
  if (!('end' in settled)) return settled;
  const lost = failures.find(isLoss);
  return lost === undefined ? await watchToTheEnd(recovery) : await finishLost(recovery, toVmmigError(lost).message);
}

/** The destination has noted that what the guest still needs is nowhere any more. */
function isLost({ unfinished }: Recovery): boolean {
  return unfinished.parts.some(
    ({ hosted: { ledger, isFromBefore } }) => ledger.role === 'destination' && ledger.phase === 'lost' && !isFromBefore,
  );
}

/** Says so, also again, and sees to it that somebody waits for the guest's end. */
async function finishLost(recovery: Recovery, message: string): Promise<MigrationReport> {
  await forget(recovery);
  return await finishInterrupted(recovery, new VmmigError('VMMIG_MEMORY_LOST', message));
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
    return await finishInterrupted(recovery, thrown);
  } finally {
    ended.abort();
  }
}

/** The guest runs on the destination without all of its memory, and nobody watches any more. */
async function finishInterrupted({ recorder, leave, unfinished }: Recovery, thrown: unknown): Promise<MigrationReport> {
  const { vm, from, to } = unfinished;
  const { code, message } = leave?.aborted
    ? { code: 'VMMIG_LEFT', message: 'The command was made to end' }
    : toVmmigError(thrown);
  const what =
    code === 'VMMIG_MEMORY_LOST'
      ? 'only until it touches what is lost: end it there and start it again from its disk'
      : `and may still need memory from ${from.name}`;
  const text = `${message}. ${vm} runs on ${to.name} ${what}`;
  const error = new VmmigError(code, text, { phase: 'pull', vmLocation: 'destination' });
  return await recorder.finish('interrupted', 'destination', error);
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
