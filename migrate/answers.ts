/** What the hosts have answered last, while it was found out where a guest is. */
import type { DestinationState, SourceState } from '../host-service/commit/index.js';
import type { AskedDestination, Results } from '../host-service/protocol.js';
import type { Answer, Undecided } from './undecided.js';

export class Answers {
  #source: Answer<SourceState> = null;
  #destination: Answer<DestinationState> = null;
  #remembers = true;

  /** Passes on what came of asking. */
  async ofSource(ask: () => Promise<Results['source.post']>): Promise<Results['source.post']> {
    try {
      const answer = await ask();
      this.#source = { state: answer.state, hasEnded: answer.guestHasEnded || answer.state === 'released' };
      return answer;
    } catch (failure) {
      this.#source = { failure };
      throw failure;
    }
  }

  /** Likewise. */
  async ofDestination(ask: () => Promise<AskedDestination>): Promise<DestinationState> {
    try {
      const { state, guestHasEnded: hasEnded, remembers } = await ask();
      this.#destination = { state, hasEnded };
      this.#remembers = remembers;
      return state;
    } catch (failure) {
      this.#destination = { failure };
      throw failure;
    }
  }

  get last(): Pick<Undecided, 'source' | 'destination' | 'remembers'> {
    return { source: this.#source, destination: this.#destination, remembers: this.#remembers };
  }

  /** The destination may have run the guest and its QEMU is gone, and at the source nothing waits to be told of it. */
  get isOver(): boolean {
    const [source, destination] = [this.#source, this.#destination];
    if (source === null || destination === null || !('state' in source) || !('state' in destination)) return false;
    return destination.hasEnded && (source.state === 'released' || source.state === 'resumed');
  }
}
