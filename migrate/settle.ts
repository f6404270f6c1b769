/** Finds out where the guest of a migration is that nobody watches any more, and has it finished either way. */
import type { ResolutionEnd } from '../host-service/commit/index.js';
import { call } from '../host-service/protocol.js';
import type { InventoryHost } from '../hosts/index.js';
import { RemoteError } from '../hosts/rpc.js';
import { Answers } from './answers.js';
import { VmmigError } from './errors.js';
import { guestEnded, guestEndedThere } from './guestEnded.js';
import { addressOf } from './locate.js';
import { outcome } from './outcome.js';
import type { Recovery } from './recovery.js';
import type { MigrationReport } from './report.js';
import { resolve } from './resolve.js';
import { openSide, type Side } from './sides.js';
import { nothingNoted, type Probed, undecided } from './undecided.js';

const openTimeoutMs = 10_000;
const limits = { timeoutMs: 20_000 };

/** The guest runs on the destination. */
export interface Moved {
  readonly end: Extract<ResolutionEnd, 'moved' | 'unreleased'>;
}

/**
 * @param failures - gets what an answer is missing for
 * @returns the report, unless the guest runs on the destination: then there is more to do
 */
export async function settle(recovery: Recovery, failures: unknown[] = []): Promise<MigrationReport | Moved> {
  const { recorder, unfinished } = recovery;
  const { vm, from, to, mode, parts } = unfinished;
  if (parts.length === 0) return await judgeByGuest(recovery);
  const bootId = parts.find(({ hosted: { ledger } }) => ledger.role === 'source')?.hosted.ledger.peer.bootId ?? null;
  const answers = new Answers();
  const end = await recorder.during(mode === 'switch' ? 'switch-over' : 'verify', () =>
    resolve({
      postToSource: (event) =>
        answers.ofSource(() => {
          const params = { ...partOn(recovery, from), event };
          return ask(recovery, 'source', failures, ({ rpc }) => call(rpc, 'source.post', params, limits));
        }),
      askDestination: () =>
        answers.ofDestination(() => {
          const params = { ...partOn(recovery, to), bootId };
          return ask(recovery, 'destination', failures, ({ rpc }) => call(rpc, 'destination.ask', params, limits));
        }),
    }),
  );
  if (end === 'moved' || end === 'unreleased') return { end };
  // A source that runs it keeps nothing that would have to be let go of.
  if (answers.isOver) await (end === 'stayed' ? concludeThere(recovery) : forget(recovery));
  const { result, vmLocation } = outcome({ end, cancelled: false, mayBeHeld: true, complete: false });
  if (vmLocation === 'source') return await recorder.finish(result, vmLocation, stayed(recovery));
  if (end === 'ended') return await recorder.finish(result, vmLocation, guestEnded(vm, from.name, null, null));
  if (answers.isOver) return await recorder.finish(result, vmLocation, guestEndedThere(vm, from.name, to.name));
  const known = { vm, from: from.name, to: to.name, ...answers.last, failures };
  return await recorder.finish(result, vmLocation, undecided(known));
}

/** Nobody has to ask any more, and the memory that is left is of no use. */
export async function forget(recovery: Recovery): Promise<void> {
  const { runDir, migrationId } = partOn(recovery, recovery.unfinished.from);
  const nothing = { runDir, migrationId, endpoint: null };
  const telling = ask(recovery, 'source', [], ({ rpc }) => call(rpc, 'source.reconnect', nothing, limits));
  // What cannot be told now is told by the next `recover`.
  await Promise.allSettled([telling, concludeThere(recovery)]);
}

/** The destination need not remember any more. Where it cannot be told, the next `recover` tells it. */
export async function concludeThere(recovery: Recovery): Promise<void> {
  const there = partOn(recovery, recovery.unfinished.to);
  const telling = ask(recovery, 'destination', [], ({ rpc }) => call(rpc, 'destination.conclude', there, limits));
  await telling.catch(() => {});
}

/**
 * Asks a host, over a new session when there is none.
 * @param failures - gets what an answer is missing for
 */
export async function ask<T>(
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
export function partOn({ unfinished, guest }: Recovery, { name: host, runDir }: InventoryHost) {
  const ledger = unfinished.parts.find((part) => part.host.name === host)?.hosted.ledger;
  if (ledger === undefined) return { migrationId: unfinished.id, runDir, guest: addressOf(guest) };
  const { process: _, ...address } = ledger.guest;
  return { migrationId: unfinished.id, runDir, guest: address };
}

/** The guest runs on the source: why it was not moved, as far as that is known. */
function stayed({ before, unfinished }: Recovery): VmmigError {
  const { code, message } = before?.error ?? {
    code: 'VMMIG_GIVEN_UP',
    message: `the migration had not come to its commit point, and ${unfinished.vm} goes on where it was`,
  };
  return new VmmigError(code, message, { phase: before?.error?.phase ?? null });
}

/** Neither host keeps anything of it: it is over, and the guest is where it runs. */
async function judgeByGuest(recovery: Recovery): Promise<MigrationReport> {
  const { recorder, guest, unfinished } = recovery;
  const { vm, from, to } = unfinished;
  const probe = async (which: 'source' | 'destination'): Promise<Probed> => {
    const host = (which === 'source' ? from : to).name;
    const address = { ...addressOf(guest), noAgent: true };
    return await ask(recovery, which, [], ({ rpc }) => call(rpc, 'guest.probe', address, limits)).then(
      ({ state }) => ({ host, state }),
      (failure) => ({ host, failure }),
    );
  };
  const [there, here] = await Promise.all([probe('destination'), probe('source')]);
  const [runsThere, runsHere] = [there, here].map((found) => ('state' in found ? found.state === 'running' : null));
  if (runsThere === true && runsHere === false) return await recorder.finish('moved', 'destination', null);
  if (runsHere === true && runsThere === false) return await recorder.finish('failed', 'source', stayed(recovery));
  return await recorder.finish('unknown', 'unknown', nothingNoted(vm, here, there));
}
