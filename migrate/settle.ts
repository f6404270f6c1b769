/** Finds out where the guest of a migration is that nobody watches any more, and has it finished either way. */
import type { ResolutionEnd } from '../host-service/commit/index.js';
import { call } from '../host-service/protocol.js';
import type { InventoryHost } from '../hosts/index.js';
import { RemoteError } from '../hosts/rpc.js';
import { toVmmigError, VmmigError } from './errors.js';
import { guestEnded } from './guestEnded.js';
import { addressOf } from './locate.js';
import { outcome } from './outcome.js';
import type { Recovery } from './recovery.js';
import type { MigrationReport } from './report.js';
import { resolve } from './resolve.js';
import { openSide, type Side } from './sides.js';

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
  const { recorder, unfinished, before } = recovery;
  const { vm, from, to, mode, parts } = unfinished;
  if (parts.length === 0) return await judgeByGuest(recovery);
  const bootId = parts.find(({ hosted: { ledger } }) => ledger.role === 'source')?.hosted.ledger.peer.bootId ?? null;
  const end = await recorder.during(mode === 'switch' ? 'switch-over' : 'verify', () =>
    resolve({
      postToSource: async (event) => {
        const params = { ...partOn(recovery, from), event };
        return await ask(recovery, 'source', failures, ({ rpc }) => call(rpc, 'source.post', params, limits));
      },
      askDestination: async () => {
        const params = { ...partOn(recovery, to), bootId };
        return (await ask(recovery, 'destination', failures, ({ rpc }) => call(rpc, 'destination.ask', params, limits)))
          .state;
      },
    }),
  );
  if (end === 'moved' || end === 'unreleased') return { end };
  const { result, vmLocation } = outcome({ end, cancelled: false, mayBeHeld: true, complete: false });
  if (vmLocation === 'source') return await recorder.finish(result, vmLocation, stayed(recovery));
  if (end === 'ended') return await recorder.finish(result, vmLocation, guestEnded(vm, from.name, null, null));
  const why = failures.length === 0 ? '' : `: ${failures.map((failure) => toVmmigError(failure).message).join('; ')}`;
  const text = `whether ${vm} runs on ${to.name} could not be found out${why}`;
  const cause = before?.error?.code ?? 'VMMIG_UNRESOLVED';
  return await recorder.finish(result, vmLocation, new VmmigError(cause, text, { vmLocation, retryable: true }));
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
