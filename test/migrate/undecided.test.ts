import { describe, expect, it } from 'vitest';
import type { DestinationState, SourceState } from '../../host-service/commit/index.js';
import type { VmmigError } from '../../migrate/errors.js';
import { type Answer, nothingNoted, type Undecided, undecided } from '../../migrate/undecided.js';

const names = { vm: 'vm1', from: 'hostA', to: 'hostB', remembers: true } as const;
const said = <State>(state: State, hasEnded = false): Answer<State> => ({ state, hasEnded });
const silent = (why: string): Answer<never> => ({ failure: new Error(why) });

function told(
  source: Answer<SourceState>,
  destination: Answer<DestinationState>,
  more: Partial<Undecided> = {},
): VmmigError {
  return undecided({ ...names, source, destination, ...more });
}

describe('What recover says when it cannot tell where a guest is', () => {
  it('has both answers, what keeps the guest safe, and what to do: the destination’s QEMU has ended', () => {
    for (const held of ['held', 'inDoubt'] as const) {
      const error = told(said(held), said('doubtful', true));
      expect(error).toMatchObject({ code: 'VMMIG_INCONCLUSIVE', vmLocation: 'unknown', retryable: false });
      expect(error.message).toBe(
        'hostA answers that vm1 was to go, and is paused there; hostB answers that vm1 was to run there, and its QEMU ' +
          'has ended since. It may have run on hostB and written to its disks, which are newer then than its memory on ' +
          'hostA: nobody can know any more. It is kept paused on hostA, and goes on nowhere by itself. Do not let it go ' +
          'on there, unless you can rule out that it ran on hostB. End its QEMU on hostA, start it again from its disk, ' +
          'as after a power cut, and run "vmmig recover vm1" once more to have removed what is left of the migration',
      );
    }
  });

  it('is that it cannot be known, when the destination has restarted', () => {
    const { code, message } = told(said('held'), said('doubtful'), { remembers: false });
    expect(code).toBe('VMMIG_INCONCLUSIVE');
    expect(message).toMatch(
      /hostB answers that it keeps nothing from then any more: it has restarted, for all that is known\. .*as after a power cut/,
    );
  });

  it('is to ask again, where a QEMU does not answer or could not be ended', () => {
    const mute = told(said('held'), said('doubtful'));
    expect(mute).toMatchObject({ code: 'VMMIG_INCONCLUSIVE', retryable: true });
    expect(mute.message).toMatch(/When that QEMU answers, or when you have ended it, run "vmmig recover vm1" again$/);
    const unended = told(said('held'), said('unended'));
    expect(unended.message).toMatch(
      /kept paused on hostA, .*\. End it on hostB, and run .* again: then it goes on, on hostA$/,
    );
  });

  it('is no word of waiting where nothing is paused', () => {
    const { message } = told(said('released', true), said('doubtful'));
    expect(message).toMatch(/^hostA answers that its QEMU of vm1 has ended; /);
    expect(message).not.toMatch(/paused/);
  });

  it('names the host that could not be asked, and why, and has the other one’s answer', () => {
    const error = told(said('held'), silent('no route'));
    expect(error).toMatchObject({ code: 'VMMIG_UNRESOLVED', retryable: true });
    expect(error.message).toMatch(
      /^hostA answers that vm1 was to go, and is paused there; hostB could not be asked: no route\. /,
    );
    expect(error.message).toMatch(/again when hostB can be reached$/);
    expect(told(silent('a'), silent('b')).message).toMatch(/again when hostA and hostB can be reached$/);
  });

  it('is that it belongs on the source, when the destination has given it up', () => {
    const unreached = told(silent('no route'), said('ended'));
    expect(unreached).toMatchObject({ code: 'VMMIG_UNRESOLVED' });
    expect(unreached.message).toMatch(/So vm1 belongs on hostA, and whether it runs there is not known/);
    const stuck = told(said('kept'), said('ended'));
    expect(stuck).toMatchObject({ code: 'VMMIG_INCONCLUSIVE', retryable: true });
    expect(stuck.message).toMatch(/So vm1 belongs on hostA, which does not say that it runs there/);
  });

  it('is a warning, when both say that they run it', () => {
    const error = told(said('resumed'), said('running'));
    expect(error).toMatchObject({ code: 'VMMIG_INCONCLUSIVE', retryable: false });
    expect(error.message).toMatch(
      /hostA answers that vm1 runs there; hostB answers that vm1 runs there.*End one of them at once/,
    );
  });

  it('has what went wrong besides, once', () => {
    const failures = [new Error('no route'), new Error('the relay is gone'), new Error('the relay is gone')];
    const { message } = told(said('held'), silent('no route'), { failures });
    expect(message.match(/no route/g)).toHaveLength(1);
    expect(message.match(/the relay is gone/g)).toHaveLength(1);
  });

  const sources = [
    'running',
    'stopped',
    'holding',
    'held',
    'inDoubt',
    'orphaned',
    'keeping',
    'kept',
    'resuming',
    'resumed',
  ];
  const destinations = [
    'loading',
    'permitted',
    'deciding',
    'starting',
    'running',
    'doubtful',
    'orphaned',
    'unended',
    'ended',
  ];

  it('never tells anybody to let a guest go on that may have run elsewhere, and is made of sentences', () => {
    for (const source of [...sources, 'released'] as SourceState[])
      for (const destination of destinations as DestinationState[])
        for (const hasEnded of [true, false]) {
          const { message } = told(said(source), said(destination, hasEnded));
          expect(message).not.toMatch(/undefined|null|\.\.|\. [a-z]|\.$/);
          if (destination === 'doubtful' && source !== 'kept' && source !== 'orphaned')
            expect(message).not.toMatch(/belongs on hostA|then it goes on/);
        }
  });
});

describe('What is said of a migration of which nothing is noted any more', () => {
  it('is what both QEMUs say', () => {
    const error = nothingNoted('vm1', { host: 'hostA', state: 'paused' }, { host: 'hostB', state: null });
    expect(error).toMatchObject({ code: 'VMMIG_INCONCLUSIVE', vmLocation: 'unknown', retryable: false });
    expect(error.message).toMatch(
      /^hostA answers that its QEMU of vm1 is "paused"; hostB answers that no QEMU of vm1 does\. /,
    );
  });

  it('is who could not be asked', () => {
    const error = nothingNoted(
      'vm1',
      { host: 'hostA', failure: new Error('no route') },
      { host: 'hostB', state: null },
    );
    expect(error).toMatchObject({ code: 'VMMIG_UNRESOLVED', retryable: true });
    expect(error.message).toMatch(/^hostA could not be asked: no route; /);
  });
});
