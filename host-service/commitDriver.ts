/** Carries out what one of the commit point's machines says: its actions in their order, each answered by an event. */
import type { Step } from './commit/index.js';

export class CommitDriver<State extends string, Event extends string, Action extends string> {
  #state: State;
  readonly #step: (state: State, event: Event) => Step<State, Action>;
  readonly #perform: (action: Action) => Promise<Event | null>;
  #turn: Promise<void> = Promise.resolve();
  #waiting: (() => void)[] = [];

  /** @param perform - resolves with what came of an action; null where nothing depends on it */
  constructor(
    state: State,
    step: (state: State, event: Event) => Step<State, Action>,
    perform: (action: Action) => Promise<Event | null>,
  ) {
    this.#state = state;
    this.#step = step;
    this.#perform = perform;
  }

  get state(): State {
    return this.#state;
  }

  /** Resolves when everything that follows from the event has been done. Events are dealt with one after the other. */
  async post(event: Event): Promise<State> {
    this.#turn = this.#turn.then(() => this.#handle(event));
    await this.#turn;
    return this.#state;
  }

  /** Resolves with the first state, from now on, for which this holds. */
  async until(isReached: (state: State) => boolean, signal?: AbortSignal): Promise<State> {
    while (!isReached(this.#state)) {
      signal?.throwIfAborted();
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
        signal?.addEventListener('abort', () => resolve(), { once: true });
      });
    }
    return this.#state;
  }

  async #handle(first: Event): Promise<void> {
    const events: Event[] = [first];
    for (let event = events.shift(); event !== undefined; event = events.shift()) {
      const { state, actions } = this.#step(this.#state, event);
      this.#state = state;
      for (const action of actions) {
        const outcome = await this.#perform(action);
        if (outcome !== null) events.push(outcome);
      }
    }
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
