/** Whether both hosts can be reached while the guest is the source's, and what is told the operator of it. */
import type { SourceSample } from '../host-service/protocol.js';
import type { Recorder } from './recorder.js';
import type { Side } from './sides.js';

/** The destination tells five times a second how it goes: a session that was cut comes back later than the link. */
const heardWithinMs = 3_000;

export class LinkWatch implements Disposable {
  readonly #recorder: Recorder;
  readonly #limitMs: number;
  readonly #subscription: Disposable;
  #heardAtMs = performance.now();
  /** Null before the relays have met. */
  #isConnected: boolean | null = null;

  /** @param limitMs - for how long the relays look for each other */
  constructor(destination: Side, recorder: Recorder, limitMs: number) {
    this.#recorder = recorder;
    this.#limitMs = limitMs;
    this.#subscription = destination.rpc.onNotification('destination.sample', () => {
      this.#heardAtMs = performance.now();
    });
  }

  /** A guest that is stopped now would not have to wait for a network that is cut. */
  get isWhole(): boolean {
    return this.#isConnected === true && !this.isCut;
  }

  /** Not whole any more. */
  get isCut(): boolean {
    return this.#isConnected === false || performance.now() - this.#heardAtMs >= heardWithinMs;
  }

  take({ isConnected }: Pick<SourceSample, 'isConnected'>): void {
    const before = this.#isConnected;
    if (isConnected === before || (before === null && !isConnected)) return;
    this.#isConnected = isConnected;
    if (before === null) return;
    if (isConnected) return this.#recorder.notice('info', 'VMMIG_LINK_LOST', 'the relays are connected again');
    const seconds = Math.round(this.#limitMs / 1000);
    const text = `the link between the hosts was lost: the guest runs on, on the source; connecting again for ${seconds} s`;
    this.#recorder.notice('warn', 'VMMIG_LINK_LOST', text);
  }

  [Symbol.dispose](): void {
    this.#subscription[Symbol.dispose]();
  }
}
