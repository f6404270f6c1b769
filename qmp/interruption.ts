/** A deadline and a signal as one thing: whichever comes first interrupts, once. */
import type { QmpInterruption } from './errors.js';

/** How long an operation may take. */
export interface QmpLimits {
  /** Abort ends the operation with {@link QmpInterruptedError}; its `cause` is the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Milliseconds from the call. `Infinity`: no deadline. */
  timeoutMs?: number | undefined;
}

/** Longest delay that Node's timers keep; beyond it they fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * Calls `interrupt` at the deadline or on abort (at once, if the signal is aborted already), unless disarmed before.
 *
 * @returns disarms; releases timer and listener
 */
export function onInterruption(
  { signal, timeoutMs = Number.POSITIVE_INFINITY }: QmpLimits,
  interrupt: (reason: QmpInterruption, cause: unknown) => void,
): () => void {
  if (signal?.aborted) {
    interrupt('abort', signal.reason);
    return () => undefined;
  }
  let timer: NodeJS.Timeout | undefined;
  let unwatch = () => {};
  const disarm = () => {
    clearTimeout(timer);
    unwatch();
  };
  if (signal !== undefined) {
    unwatch = watch(signal, () => {
      disarm();
      interrupt('abort', signal.reason);
    });
  }
  if (timeoutMs <= MAX_TIMER_MS) {
    timer = setTimeout(() => {
      disarm();
      interrupt('timeout', undefined);
    }, timeoutMs);
  }
  return disarm;
}

/** One signal covers many commands at a time; more than ten listeners of its own each, and Node warns of a leak. */
const watched = new WeakMap<AbortSignal, { callbacks: Set<() => void>; listener: () => void }>();

function watch(signal: AbortSignal, callback: () => void): () => void {
  let entry = watched.get(signal);
  if (entry === undefined) {
    const callbacks = new Set<() => void>();
    const listener = () => {
      for (const each of callbacks) each();
    };
    entry = { callbacks, listener };
    watched.set(signal, entry);
  }
  const { callbacks, listener } = entry;
  if (callbacks.size === 0) signal.addEventListener('abort', listener);
  callbacks.add(callback);
  return () => {
    if (callbacks.delete(callback) && callbacks.size === 0) signal.removeEventListener('abort', listener);
  };
}

/** How an interruption reads in a message: `aborted`, `no answer within 100 ms`. */
export function describeInterruption(reason: QmpInterruption, timeoutMs: number | undefined): string {
  return reason === 'timeout' ? `no answer within ${timeoutMs} ms` : 'aborted';
}
