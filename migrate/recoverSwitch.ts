/**
 * Brings a switch to its end that nobody watches: finds out where the guest is, and where it runs on the destination and
 * still needs memory, watches the pull. The services pull by themselves, so leaving costs nothing but sight of it.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { call, type HostedMigration, type Pulled } from '../host-service/protocol.js';
import { toVmmigError, VmmigError } from './errors.js';
import { addressOf } from './locate.js';
import { outcome } from './outcome.js';
import type { Recovery } from './recover.js';
import type { MigrationReport } from './report.js';
import { resolve } from './resolve.js';
import { takeOver } from './takeOver.js';
import { tally } from './tally.js';
import { pageBytes } from './units.js';

const askTimeoutMs = 20_000;
const watchIntervalMs = 500;
const limits = { timeoutMs: askTimeoutMs };

export async function recoverSwitch(recovery: Recovery): Promise<MigrationReport> {
  const { recorder, unfinished, before, sessions } = recovery;
  const { vm, to } = unfinished;
  if (unfinished.parts.length === 0) return await judgeByGuest(recovery);
  const failures: unknown[] = [];
  if (needsTakeOver(recovery)) await noting(failures, () => replaceDestination(recovery)).catch(() => {});
  const end = await recorder.during('switch-over', () =>
    resolve({
      postToSource: async (event) =>
        await noting(failures, async () => {
          const { rpc } = await sessions.side('source');
          return (await call(rpc, 'source.post', { ...partOf(recovery, 'source'), event }, limits)).state;
        }),
      askDestination: async () =>
        await noting(failures, async () => {
          const { rpc } = await sessions.side('destination');
          return (await call(rpc, 'destination.ask', partOf(recovery, 'destination'), limits)).state;
        }),
    }),
  );
  const { result, vmLocation } = outcome({ end, cancelled: false, mayBeHeld: true, complete: false });
  if (vmLocation === 'destination') return await watchPull(recovery);
  if (vmLocation === 'source') return await recorder.finish(result, vmLocation, stayed(recovery));
  const why = failures.length === 0 ? '' : `: ${failures.map((failure) => toVmmigError(failure).message).join('; ')}`;
  const text = `whether ${vm} runs on ${to.name} could not be found out${why}`;
  const cause = before?.error?.code ?? 'VMMIG_UNRESOLVED';
  return await recorder.finish(result, vmLocation, new VmmigError(cause, text, { vmLocation, retryable: true }));
}

/** The guest was let run on the destination, and nobody is there any more who brings it memory. */
function needsTakeOver({ unfinished }: Recovery): boolean {
  const hosted = unfinished.parts.find(({ hosted: { ledger } }) => ledger.role === 'destination')?.hosted;
  return hosted?.decision === 'run' && hosted.destination === null && !hosted.isBusy && !hosted.isFromBefore;
}

/** First of all: until it has memory again, the destination's QEMU may not be able to answer. */
async function replaceDestination(recovery: Recovery): Promise<void> {
  const { sessions } = recovery;
  const [source, destination] = await Promise.all([sessions.side('source'), sessions.side('destination')]);
  const { guest, migrationId } = partOf(recovery, 'destination');
  await takeOver({ source, destination }, guest, migrationId);
}

/** What an error of the way was stays known, though the way goes on. */
async function noting<T>(failures: unknown[], work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    failures.push(thrown);
    throw thrown;
  }
}

/** What a host finds its part by. */
function partOf({ unfinished, guest }: Recovery, role: 'source' | 'destination') {
  const { id: migrationId, from, to, parts } = unfinished;
  const ledger = parts.find(({ hosted }) => hosted.ledger.role === role)?.hosted.ledger;
  const { name, qmpPath, agentPath } = ledger?.guest ?? addressOf(guest);
  return { migrationId, runDir: (role === 'source' ? from : to).runDir, guest: { name, qmpPath, agentPath } };
}

/** The guest runs on the source: why it was not moved, as far as that is known. */
function stayed({ before, unfinished }: Recovery): VmmigError {
  const { code, message } = before?.error ?? {
    code: 'VMMIG_GIVEN_UP',
    message: `the migration had not come to its commit point, and ${unfinished.vm} goes on where it was`,
  };
  return new VmmigError(code, message, { phase: before?.error?.phase ?? null });
}

async function watchPull(recovery: Recovery): Promise<MigrationReport> {
  const { recorder, leave, unfinished } = recovery;
  const ended = new AbortController();
  try {
    const pulled = await recorder.during('pull', async () => {
      void watch(recovery, ended.signal);
      return await Promise.race([untilPulled(recovery, ended.signal), whenAborted(leave, ended.signal)]);
    });
    recorder.facts = {
      ...recorder.facts,
      verified: pulled === null || pulled.hasTakenOver ? null : true,
      faults: pulled?.faults ?? recorder.facts.faults,
    };
    return await recorder.finish('moved', 'destination', null);
  } catch (thrown) {
    const { code, message } = toVmmigError(thrown);
    const text = `${message}. ${unfinished.vm} runs on ${unfinished.to.name} and may still need memory from ${unfinished.from.name}`;
    const error = new VmmigError(code, text, { phase: 'pull', vmLocation: 'destination' });
    return await recorder.finish('interrupted', 'destination', error);
  } finally {
    ended.abort();
  }
}

/** Both hosts' services say so, or have gone in good order. A destination's service that was lost is replaced before. */
async function untilPulled(recovery: Recovery, signal: AbortSignal): Promise<Pulled | null> {
  const { sessions, unfinished } = recovery;
  const [source, destination] = await Promise.all([sessions.side('source'), sessions.side('destination')]);
  const part = partOf(recovery, 'destination');
  // The guest may need this very service from here on.
  sessions.leavesServices = true;
  const failure = await takeOver({ source, destination }, part.guest, unfinished.id).then(
    () => null,
    (thrown: unknown) => thrown,
  );
  try {
    const [, pulled] = await Promise.all([
      call(source.rpc, 'source.pulled', partOf(recovery, 'source'), { signal }),
      call(destination.rpc, 'destination.pulled', part, { signal }),
    ]);
    sessions.leavesServices = false;
    return pulled;
  } catch (thrown) {
    throw failure ?? thrown;
  }
}

/** Rejects when the operator leaves. */
function whenAborted(leave: AbortSignal | undefined, until: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const left = () => reject(new VmmigError('VMMIG_LEFT', 'the command was made to end'));
    if (leave?.aborted) return left();
    leave?.addEventListener('abort', left, { once: true, signal: until });
  });
}

/** Tells the progress that the services are asked for. */
async function watch(recovery: Recovery, signal: AbortSignal): Promise<void> {
  const { unfinished, sessions } = recovery;
  const ask = async (role: 'source' | 'destination') => {
    const side = await sessions.side(role);
    const found = await call(side.rpc, 'host.migrations', { runDir: side.host.runDir }, { signal, ...limits });
    const { offsetMs } = await side.clock;
    return {
      hosted: found.find(({ ledger }) => ledger.migrationId === unfinished.id && ledger.role === role),
      offsetMs,
    };
  };
  while (!signal.aborted) {
    try {
      const [{ hosted: sending }, { hosted: receiving, offsetMs }] = await Promise.all([
        ask('source'),
        ask('destination'),
      ]);
      if (!signal.aborted) tell(recovery, sending?.source ?? null, receiving?.destination ?? null, offsetMs);
    } catch {
      // What is wrong is told by the wait for the end.
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
  const { recorder, sessions, guest, unfinished, before } = recovery;
  const runsOn = async (role: 'source' | 'destination') => {
    const side = await sessions.side(role).catch(() => null);
    if (side === null) return null;
    const probe = await call(side.rpc, 'guest.probe', { ...addressOf(guest), agentPath: null }, limits);
    return probe.state === 'running';
  };
  const [there, here] = await Promise.all([runsOn('destination'), runsOn('source')]);
  if (there === true && here === false) return await recorder.finish('moved', 'destination', null);
  if (here === true && there === false) return await recorder.finish('failed', 'source', stayed(recovery));
  const { vm, from, to } = unfinished;
  const code = before?.error?.code ?? 'VMMIG_UNRESOLVED';
  const text = `neither ${from.name} nor ${to.name} keeps anything of this migration, and which of them runs ${vm} could not be told`;
  return await recorder.finish('unknown', 'unknown', new VmmigError(code, text, { vmLocation: 'unknown' }));
}
