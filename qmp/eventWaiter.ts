/** Waiting for one QMP event. */
import { QmpInterruptedError } from './errors.js';
import { type EventHub, matcher, type QmpEventFilter, type QmpEventListener } from './eventHub.js';
import { describeInterruption, onInterruption, type QmpLimits } from './interruption.js';
import type { QmpEvent } from './types/events.js';

/**
 * The next event that passes the filter. Listens from the moment of the call; a caller that never awaits the promise
 * leaves no unhandled rejection.
 *
 * @returns rejects with {@link QmpInterruptedError} on disconnect, `close`, abort or timeout
 */
export function waitForEvent<E extends string>(
  hub: EventHub,
  filter: QmpEventFilter<E>,
  limits: QmpLimits,
): Promise<QmpEvent<E>> {
  const wanted = typeof filter === 'function' ? 'a QMP event' : `the QMP event ${[filter].flat().join(' or ')}`;
  const matches = matcher(filter);
  const promise = new Promise<QmpEvent<E>>((resolve, reject) => {
    const fail = (error: unknown) => {
      release();
      reject(error);
    };
    const listener: QmpEventListener = {
      offer: (event) => {
        try {
          if (!matches(event)) return;
        } catch (error) {
          fail(error);
          return;
        }
        release();
        resolve(event as QmpEvent<E>);
      },
      end: (cause) => {
        const why = cause?.message ?? 'the QMP client was closed';
        const reason = cause === undefined ? 'closed' : 'disconnect';
        fail(new QmpInterruptedError(`waiting for ${wanted}: ${why}`, reason, { cause }));
      },
    };
    let disarm = () => {};
    const release = () => {
      disarm();
      hub.delete(listener);
    };
    disarm = onInterruption(limits, (reason, cause) => {
      const why = describeInterruption(reason, limits.timeoutMs);
      fail(new QmpInterruptedError(`waiting for ${wanted}: ${why}`, reason, { cause }));
    });
    if (!limits.signal?.aborted) hub.add(listener);
  });
  promise.catch(() => undefined);
  return promise;
}
