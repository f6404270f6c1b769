import { describe, expect, it } from 'vitest';
import type { DestinationState, SourceState } from '../../host-service/commit/index.js';
import { type Parties, resolve } from '../../migrate/resolve.js';

type Answers = Partial<Record<'abandon' | 'release' | 'resume', SourceState>>;

/** Hosts that answer so; what is not there is out of reach. */
function parties(source: Answers, destination: DestinationState | null, guestHasEnded = false): Parties {
  return {
    async postToSource(event) {
      const state = source[event];
      if (state === undefined) throw new Error('silent');
      return { state, guestHasEnded: guestHasEnded && state === 'kept' };
    },
    async askDestination() {
      if (destination === null) throw new Error('silent');
      return destination;
    },
  };
}

describe('What became of a guest', () => {
  it('is that it runs nowhere, when it belongs to the source and its QEMU is gone there', async () => {
    expect(await resolve(parties({ abandon: 'kept', resume: 'kept' }, 'ended', true))).toBe('ended');
    // Nothing was decided, so it does not matter what the destination would say.
    expect(await resolve(parties({ abandon: 'kept' }, null, true))).toBe('ended');
    // Of a service that came later.
    expect(await resolve(parties({ abandon: 'released', resume: 'released' }, 'ended'))).toBe('ended');
  });

  it('is not known, when the source has let go and the destination cannot be asked', async () => {
    expect(await resolve(parties({ abandon: 'released' }, null))).toBe('unknown');
  });

  it('is not confirmed, when the source’s QEMU is there and does not go on', async () => {
    expect(await resolve(parties({ abandon: 'kept', resume: 'kept' }, 'ended'))).toBe('unconfirmed');
  });

  it('is that it has moved, when the destination runs it, whatever has become of the source', async () => {
    expect(await resolve(parties({ abandon: 'held', release: 'released' }, 'running'))).toBe('moved');
    expect(await resolve(parties({ abandon: 'released', release: 'released' }, 'running'))).toBe('moved');
  });
});
