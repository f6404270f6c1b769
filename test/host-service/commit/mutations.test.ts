/** The exploration finds machines that are wrong: each of these breaks one rule of the commit point. */
import { describe, expect, it } from 'vitest';
import { destinationStep, destinationTable } from '../../../host-service/commit/destination.js';
import { machine } from '../../../host-service/commit/machine.js';
import { resolutionStep, resolutionTable } from '../../../host-service/commit/resolution.js';
import { sourceStep, sourceTable } from '../../../host-service/commit/source.js';
import { type Bounds, explore } from './explorer.js';
import { violationAfterRecovery, violationIn } from './invariants.js';
import type { Machines, Mode, World } from './world.js';

const right: Machines = { source: sourceStep, destination: destinationStep, resolution: resolutionStep };

const source = (changes: Partial<typeof sourceTable>): Machines => ({
  ...right,
  source: machine({ ...sourceTable, ...changes }),
});
const destination = (changes: Partial<typeof destinationTable>): Machines => ({
  ...right,
  destination: machine({ ...destinationTable, ...changes }),
});
const resolution = (changes: Partial<typeof resolutionTable>): Machines => ({
  ...right,
  resolution: machine({ ...resolutionTable, ...changes }),
});

/** What the exploration says about machines that are wrong. */
function found(
  machines: Machines,
  { mode = 'switch', ...bounds }: Partial<Bounds> & { mode?: Mode } = {},
  check: (world: World) => string | null = (world) => violationIn(world) ?? violationAfterRecovery(world, machines),
): string | null {
  return explore(mode, machines, { recoveries: 1, failures: 2, ...bounds }, check).violation?.what ?? null;
}

describe('A source that is wrong is found out when it', () => {
  it('sends go before that is on disk', () => {
    const { stopped } = sourceTable;
    expect(found(source({ stopped: { ...stopped, commit: ['held', 'sendGo'] } }))).toMatch(/before that was on disk/);
  });

  it('sends go although another service has decided to keep the guest', () => {
    const { holding } = sourceTable;
    expect(found(source({ holding: { ...holding, keptStands: ['held', 'sendGo'] } }))).toMatch(
      /before that was on disk/,
    );
  });

  it('resumes when the link is lost after go', () => {
    const { held } = sourceTable;
    expect(found(source({ held: { ...held, abandon: ['resuming', 'resumeGuest'] } }))).toMatch(
      /resumed after go|twice/,
    );
  });

  it('resumes after a crash without having asked', () => {
    const { inDoubt } = sourceTable;
    expect(found(source({ inDoubt: { ...inDoubt, abandon: ['resuming', 'resumeGuest'] } }))).toMatch(
      /after (go|it has run)|twice/,
    );
  });

  it('lets the guest run beside a service that has held it', () => {
    const { keeping } = sourceTable;
    const wrong = source({ keeping: { ...keeping, heldStands: ['resuming', 'resumeGuest'] } });
    expect(found(wrong)).toMatch(/after (go|it has run)|twice/);
  });

  it('ends a guest that runs there', () => {
    const { resumed } = sourceTable;
    const { resuming } = resolutionTable;
    // It takes a command that asks for it.
    const asking = machine({
      ...resolutionTable,
      resuming: { ...resuming, sourceResumed: ['releasing', 'sendRelease'] },
    });
    const wrong = source({ resumed: { ...resumed, release: ['releasing', 'endQemu'] } });
    expect(found({ ...wrong, resolution: asking }, {}, violationIn)).toMatch(/ended a guest that ran/);
    expect(found({ ...right, resolution: asking }, {}, violationIn)).not.toMatch(/ended a guest/);
  });

  it('says that it has resumed before it has', () => {
    const { kept } = sourceTable;
    expect(found(source({ kept: { ...kept, resume: ['resumed', 'tellResumed'] } }))).toMatch(/runs nowhere/);
  });
});

describe('A destination that is wrong is found out when it', () => {
  it('lets the guest run without go', () => {
    const { loading, loaded } = destinationTable;
    const wrong = destination({ loaded: { ...loaded, abandon: ['deciding', 'writeRun'] } });
    expect(found(wrong, { mode: 'teleport' })).toMatch(/without go/);
    const early = destination({ loading: { ...loading, abandon: ['permitted'] } });
    expect(found(early)).toMatch(/without go/);
  });

  it('lets it run before that is on disk', () => {
    const { permitted } = destinationTable;
    const wrong = destination({ permitted: { ...permitted, loaded: ['starting', 'releaseGuard', 'startGuest'] } });
    expect(found(wrong)).toMatch(/before that was on disk/);
  });

  it('lets it run although another service has decided that it never will', () => {
    const { deciding } = destinationTable;
    const wrong = destination({ deciding: { ...deciding, endStands: ['starting', 'releaseGuard', 'startGuest'] } });
    expect(found(wrong)).toMatch(/before that was on disk/);
  });

  it('answers that the guest does not run, and does not see to it that it stays so', () => {
    const { loading } = destinationTable;
    const wrong = destination({ loading: { ...loading, ask: ['loading', 'tellRefused'] } });
    expect(found(wrong)).toMatch(/twice|after go|has run/);
    expect(found(wrong, { recoveries: 2 })).toMatch(/twice|after go|has run/);
  });

  it('ends a guest beside a service that has decided to run it', () => {
    const { closing } = destinationTable;
    const wrong = destination({ closing: { ...closing, runStands: ['ending', 'endQemu'] } });
    expect(found(wrong, { recoveries: 2 })).toMatch(/ended a guest that ran/);
  });

  it('says that a guest which may have run has not', () => {
    const { looking } = destinationTable;
    const wrong = destination({ looking: { ...looking, guestGone: ['ended', 'tellRefused'] } });
    expect(found(wrong)).toMatch(/after it has run|not so/);
  });

  it('ends a guest that did not answer', () => {
    const { starting } = destinationTable;
    const wrong = destination({ starting: { ...starting, startSilent: ['ending', 'endQemu'] } });
    expect(found(wrong)).toMatch(/ended a guest that ran/);
  });

  it('gives up because the link is lost while it lets the guest run', () => {
    const { starting } = destinationTable;
    const wrong = destination({ starting: { ...starting, abandon: ['ending', 'endQemu'] } });
    expect(found(wrong)).toMatch(/ended a guest that ran/);
  });

  it('leaves a guest alone that it has decided to run', () => {
    const { looking } = destinationTable;
    const wrong = destination({ looking: { ...looking, guestWaits: ['doubtful', 'tellUnknown'] } });
    expect(found(wrong)).toMatch(/could have known/);
  });
});

describe('A command that is wrong is found out when it', () => {
  it('lets the source resume without an answer from the destination', () => {
    const { askingDestination } = resolutionTable;
    const wrong = resolution({ askingDestination: { ...askingDestination, silent: ['resuming', 'sendResume'] } });
    expect(found(wrong)).toMatch(/twice|after go|has run/);
  });

  it('takes an unknown for a no', () => {
    const { askingDestination } = resolutionTable;
    const wrong = resolution({
      askingDestination: { ...askingDestination, destinationUnknown: ['resuming', 'sendResume'] },
    });
    expect(found(wrong)).toMatch(/twice|after go|has run/);
  });

  it('reports the source before that has confirmed', () => {
    const { resuming } = resolutionTable;
    expect(found(resolution({ resuming: { ...resuming, silent: ['stayed'] } }))).toMatch(/reported stayed/);
  });

  it('takes a lost answer for a yes', () => {
    const { committing } = resolutionTable;
    const wrong = resolution({ committing: { ...committing, silent: ['releasing', 'sendRelease'] } });
    expect(found(wrong, { mode: 'teleport' })).toMatch(/reported|gave up|nowhere/);
  });
});
