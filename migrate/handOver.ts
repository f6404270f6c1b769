/**
 * How long a switch waits for the destination's word. The guest stands still from its stop on the source to its start on
 * the destination, and nobody but the relays settles that: when the link between them is cut, or the destination's QEMU
 * loads for ever, no session ends and no call fails. So the command gives up waiting, and asks both hosts.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { toVmmigError, VmmigError } from './errors.js';

/** Longer than networks take that mend by themselves; applications still have their connections then. */
const patienceMs = 30_000;
const checkMs = 500;
/** On a line so slow that the state of the devices takes longer. The relays' signs of life come to less in that time. */
const progressBytes = 64 * 1024;

/** For a side to say why the other has lost it. */
const lastWordsMs = 2_000;

/**
 * What is but the consequence of a failure elsewhere, the other host's or libvirt's, by how little it says: the side that
 * has lost the other knows least.
 */
const consequences = ['VMMIG_LINK_LOST', 'VMMIG_RELAY_QEMU', 'VMMIG_DESTINATION_LOAD', 'VMMIG_LIBVIRT_UNREACHABLE'];

/** Both sides' answers, or what went wrong, by who knows it best. */
export async function whatBothSay<Here, There>(here: Promise<Here>, there: Promise<There>): Promise<[Here, There]> {
  try {
    return await Promise.all([here, there]);
  } catch (thrown) {
    if (says(thrown) === consequences.length) throw thrown;
    const outcomes = await Promise.race([Promise.allSettled([here, there]), delay(lastWordsMs, [], { ref: false })]);
    const reasons = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []));
    throw reasons.reduce((best, reason) => (says(reason) > says(best) ? reason : best), thrown);
  }
}

function says(thrown: unknown): number {
  const rank = consequences.indexOf(toVmmigError(thrown).code);
  return rank < 0 ? consequences.length : rank;
}

/**
 * @param isStandstill - whether the guest runs nowhere, and nothing comes of it
 * @param limitMs - for so long in a row
 * @throws VmmigError VMMIG_HAND_OVER; the signal's reason
 */
export async function untilHandedOver<T>(
  handedOver: Promise<T>,
  isStandstill: () => boolean,
  signal: AbortSignal,
  limitMs = patienceMs,
): Promise<T> {
  let sinceMs: number | null = null;
  let timer: NodeJS.Timeout | undefined;
  let onAbort = () => {};
  const givenUp = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    timer = setInterval(() => {
      const nowMs = performance.now();
      sinceMs = isStandstill() ? (sinceMs ?? nowMs) : null;
      if (sinceMs === null || nowMs - sinceMs < limitMs) return;
      const text = `the guest stands still, and for ${Math.round(limitMs / 1000)} s the destination has not said that it runs there`;
      reject(new VmmigError('VMMIG_HAND_OVER', text, { retryable: true }));
    }, checkMs);
  });
  try {
    return await Promise.race([handedOver, givenUp]);
  } finally {
    clearInterval(timer);
    signal.removeEventListener('abort', onAbort);
  }
}

/** Notices from what the source tells whether a guest that has stopped gets anywhere. */
export class Standstill {
  #bytesOnWire: number | null = null;

  /** @param view - null before the source has told anything */
  isStandstill(view: { readonly isStopped: boolean; readonly bytesOnWire: number } | null): boolean {
    if (view === null || !view.isStopped) return false;
    const { bytesOnWire } = view;
    if (this.#bytesOnWire !== null && bytesOnWire - this.#bytesOnWire < progressBytes) return true;
    this.#bytesOnWire = bytesOnWire;
    return false;
  }
}
