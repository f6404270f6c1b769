/**
 * The table of docs/failures.md, cell by cell, in a lab: where the guest is, the exit code and the report's error are as
 * it says, nothing is left behind, and the next migration, which is the next cell's, works.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { type HostName, healWan, hostNames, labExec, setWan } from '../../lab/index.js';
import { errorCodes } from '../../migrate/errorCodes.js';
import type { GuestList, MigrationReport, PhaseName } from '../../migrate/index.js';
import { type Cell, type Expectation, readFailureTable, type TableMode } from './failureTable.js';
import { find, untilDecided } from './hostProcesses.js';
import { reportDocument } from './reportSchema.js';
import { expectNothingLeft, fastWan, Guest, isFull, type Move, processes, useLab } from './rig.js';
import { type Strike, strikes } from './strikes.js';

/** So slow that copying lasts for as long as it takes to break something. */
const slowWan = { rttMs: 10, rateBps: 20e6 } as const;
/** What was said last takes a third of a second to arrive. */
const farWan = { rttMs: 700, rateBps: 1e9 } as const;
/** Each step of preflight takes a moment. */
const distantWan = { rttMs: 300, rateBps: 1e9 } as const;

/** In the short form: each way out once, and what has gone wrong before. */
const shownAlways: readonly (readonly [TableMode, string, string])[] = [
  ['teleport', 'Ctrl-C', 'first pass'],
  ['teleport', '`vmmig cancel`', 'first pass'],
  ['teleport', '`--timeout`', 'first pass'],
  ['teleport', "the source's service and relay, killed", 'first pass'],
  ['teleport', "the destination's QEMU, killed", 'first pass'],
  ['switch', 'Ctrl-C', 'first pass'],
  ['switch', "the source's service and relay, killed", 'first pass'],
  ['switch', "the destination's service and relay, killed", 'first pass'],
  ['switch', "the destination's QEMU, killed", 'first pass'],
];

const isShown = ({ mode, strike, phase }: Cell) =>
  isFull || shownAlways.some((each) => String(each) === String([mode, strike, phase]));

/** Starts a move, and resolves in that phase. @param strike - which has its options */
type Begin = (guest: Guest, more: readonly string[]) => Promise<Move>;

const untilPhase = async (move: Move, name: PhaseName) =>
  await move.until((event) => event.type === 'phase' && event.name === name && event.state === 'begin');

const inPhase =
  (wan: typeof slowWan | typeof distantWan, name: PhaseName): Begin =>
  async (guest, more) => {
    await setWan(wan);
    const move = guest.begin('--no-agent', ...more);
    await untilPhase(move, name);
    return move;
  };

/** From the start on a way so long that what is said near the end takes a while to arrive. */
const nearTheEnd =
  (until: (move: Move, guest: Guest) => Promise<unknown>): Begin =>
  async (guest, more) => {
    await setWan(farWan);
    const move = guest.begin('--no-agent', ...more);
    await until(move, guest);
    return move;
  };

const begins: Record<TableMode, Record<string, Begin>> = {
  teleport: {
    preflight: inPhase(distantWan, 'preflight'),
    prepare: inPhase(distantWan, 'prepare destination'),
    'first pass': async (guest, more) => {
      await setWan(slowWan);
      const move = guest.begin('--no-agent', ...more);
      await move.untilPagesMove();
      return move;
    },
    'later pass': async (guest, more) => {
      await setWan(fastWan);
      await guest.run('pattern start 32 1000');
      const move = guest.begin('--no-agent', ...more);
      await move.until((event) => event.type === 'sample' && event.dirtyBytesPerSecond !== null);
      await setWan(slowWan);
      return move;
    },
    stopped: nearTheEnd((move) => untilPhase(move, 'restore')),
    held: nearTheEnd((_, { host }) => untilDecided(host, 'source')),
    run: nearTheEnd(async (_, { host, otherHost }) => {
      await untilDecided(host, 'source');
      // It cannot answer what it is asked.
      signalQemu(otherHost, 'SIGSTOP');
      await untilDecided(otherHost, 'destination');
    }),
    after: nearTheEnd((move) => untilPhase(move, 'release source')),
  },
  switch: {
    // QEMU may stop the guest at any time, and comes to it as late as a slow link lets a small page store empty.
    'first pass': async (guest, more) => {
      await setWan(slowWan);
      const move = guest.beginSwitch('--no-agent', '--page-store-limit', '32MiB', ...more);
      await untilPhase(move, 'switch-over');
      await move.untilPagesMove();
      return move;
    },
    'hand-over': async (guest, more) => {
      await setWan(farWan);
      const move = guest.beginSwitch('--no-agent', ...more);
      await untilDecided(guest.host, 'source');
      return move;
    },
    pull: async (guest, more) => {
      await setWan(slowWan);
      const move = guest.beginSwitch('--no-agent', ...more);
      await move.untilPull();
      return move;
    },
  },
};

function signalQemu(host: HostName, signal: NodeJS.Signals): void {
  for (const pid of find(host, processes.qemu)) process.kill(pid, signal);
}

/** What QEMU calls the guest on a host; null when none answers. */
async function stateOn(host: HostName, name: string): Promise<string | null> {
  const { stdout } = await labExec(host, ['vmmig', 'list', '--json']);
  const { guests } = JSON.parse(stdout) as GuestList;
  const found = guests.find(({ vm, host: where }) => vm === name && where === host);
  return found?.state ?? null;
}

describe('The failure table', () => {
  const cells = readFailureTable();

  it('has rows for all strikes, and no others', () => {
    expect(new Set(cells.map(({ strike }) => strike))).toEqual(new Set(Object.keys(strikes)));
  });

  it('has columns for all phases, and no others', () => {
    for (const [mode, phases] of Object.entries(begins))
      expect(new Set(cells.filter((cell) => cell.mode === mode).map(({ phase }) => phase))).toEqual(
        new Set(Object.keys(phases)),
      );
  });

  it('says what else vmmig says: exit codes where the guest is, and codes of errors that there are', () => {
    const exitCodes = { source: [1, 3, 4, 5, null], destination: [0, 6, null], paused: [7, null], lost: [1, 6, 7] };
    for (const { where, exitCode, codes, recovered } of cells.flatMap((cell) => [
      cell,
      cell.recovered ?? cell,
    ]) as Cell[]) {
      expect(exitCodes[where]).toContain(exitCode);
      expect(Object.keys(errorCodes)).toEqual(expect.arrayContaining(codes.map((code) => `VMMIG_${code}`)));
      if (exitCode !== null) expect(codes.length > 0).toBe(exitCode !== 0);
      expect(recovered === undefined || recovered === null || where !== 'source').toBe(true);
    }
  });

  it('has the cells that are always shown', () => {
    for (const shown of shownAlways)
      expect(cells.filter(({ mode, strike, phase }) => String([mode, strike, phase]) === String(shown))).toHaveLength(
        1,
      );
  });
});

describe('After', () => {
  let guest: Guest;
  /** The cell before has left the guest as it should. */
  let isSound = true;

  useLab(fastWan);

  const start = async () => {
    guest = await Guest.start('vm1', { memoryMiB: 192, data: { contents: 'random', filesMiB: 64, freeMiB: 16 } });
    await guest.run('fill-cache');
  };
  beforeAll(start);

  /** Afterwards `guest.host` is where it runs. */
  async function expectGuest({ where }: Expectation, from: HostName, counted: number): Promise<void> {
    const to = from === 'hostA' ? 'hostB' : 'hostA';
    if (where === 'source' || where === 'destination') {
      guest.host = where === 'source' ? from : to;
      await guest.expectToRun(counted);
    } else if (where === 'paused') {
      expect(await stateOn(from, guest.name)).toMatch(/^(paused|postmigrate|finish-migrate)$/);
      expect(await stateOn(to, guest.name)).not.toBe('running');
    }
  }

  function expectReport({ where, codes }: Expectation, report: MigrationReport, stderr: string): void {
    expect(reportDocument.parse(report)).toEqual(report);
    if (codes.length === 0) expect(report.error, stderr).toBeNull();
    else expect(codes.map((code) => `VMMIG_${code}`)).toContain(report.error?.code);
    const vmLocation = where === 'paused' ? 'unknown' : where === 'lost' ? report.vmLocation : where;
    expect(report.vmLocation).toBe(vmLocation);
  }

  async function recover(expected: Expectation, from: HostName, counted: number): Promise<void> {
    const { exitCode, stdout, stderr } = await labExec(from, ['vmmig', 'recover', guest.name, '--json'], {
      reject: false,
    });
    expect(exitCode, stderr).toBe(expected.exitCode);
    expectReport(expected, JSON.parse(stdout) as MigrationReport, stderr);
    await expectGuest(expected, from, counted);
  }

  async function startAgain(): Promise<void> {
    for (const host of hostNames) {
      signalQemu(host, 'SIGKILL');
      await labExec(host, ['sh', '-c', 'rm -rf /run/vmmig/*']);
    }
    await start();
  }

  async function strike({ strike, after }: Strike, move: Move, phase: string): Promise<void> {
    await strike?.(move, guest);
    if (phase === 'run') for (const host of hostNames) signalQemu(host, 'SIGCONT');
    await move.ended;
    await after?.(guest);
  }

  it.each(
    readFailureTable()
      .filter(isShown)
      .map((cell) => [cell.mode, cell.strike, cell.phase, cell] as const),
  )('%s: %s, in %s: it is as the table says', { timeout: 480_000 }, async (mode, name, phase, cell) => {
    const blow = strikes[name]!;
    if (!isSound) await startAgain();
    isSound = false;
    const from = guest.host;
    const counted = await guest.count();
    await blow.before?.(guest);
    const move = await begins[mode][phase]!(guest, blow.options ?? []);
    await strike(blow, move, phase).finally(healWan);
    const outcome = await move.ended;
    await setWan(fastWan);
    if (cell.exitCode !== null) {
      expect(outcome.exitCode, outcome.stderr).toBe(cell.exitCode);
      expectReport(cell, outcome.report, outcome.stderr);
    }
    await expectGuest(cell, from, counted);
    if (cell.recovered !== null) await recover(cell.recovered, from, counted);
    const { where } = cell.recovered ?? cell;
    // What is left to be ended is the operator's.
    if (where === 'paused' || where === 'lost') return;
    if (phase === 'later pass') await guest.run('pattern stop');
    await expectNothingLeft([guest], { timeoutMs: 40_000 });
    isSound = true;
  });

  it('all that a migration works', { timeout: 120_000 }, async () => {
    if (!isSound) await startAgain();
    await guest.teleport();
    await guest.switch();
    await expectNothingLeft([guest]);
  });
});
