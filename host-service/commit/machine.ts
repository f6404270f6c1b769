/**
 * The commit point's state machines are tables: for each state, what an event leads to and what is to be done then.
 * They do no I/O. Who drives one carries the actions out, in their order, and hands what came of each back as an event;
 * an event that a state does not list changes nothing. `test/host-service/commit/` explores all of them together.
 */

/** The state that follows, then what is to be done. */
export type Move<State extends string, Action extends string> = readonly [State, ...Action[]];

export type Table<State extends string, Event extends string, Action extends string> = {
  readonly [S in State]: { readonly [E in Event]?: Move<State, Action> };
};

export interface Step<State extends string, Action extends string> {
  readonly state: State;
  readonly actions: readonly Action[];
}

/** The function that a table stands for. */
export function machine<State extends string, Event extends string, Action extends string>(
  table: Table<State, Event, Action>,
): (state: State, event: Event) => Step<State, Action> {
  return (state, event) => {
    const move: Move<State, Action> | undefined = table[state][event];
    if (move === undefined) return { state, actions: [] };
    const [next, ...actions] = move;
    return { state: next, actions };
  };
}
