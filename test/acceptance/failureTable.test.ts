/**
 * The tables of docs/failures.md, cell by cell, in a lab: where the guest is, the exit code and the report's error are as
 * they say, nothing is left behind, and the next migration, which is the next cell's, works.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { labExec, virsh } from '../../lab/index.js';
import { errorCodes } from '../../migrate/errorCodes.js';
import { domainsOn, expectQuiet, startDaemon, unsafe } from './domains.js';
import { type Cell, readFailureTable, type TableMode } from './failureTable.js';
import { phases, signalQemu } from './phases.js';
import { expectNothingLeft, fastWan, Guest, isFull, useLab } from './rig.js';
import { strikes } from './strikes.js';
import { type GuestKeeper, StruckGuest } from './struckGuest.js';

/** In the short form: each way out once, and what has gone wrong before. */
const shownAlways: readonly (readonly [TableMode, string, string])[] = [
  ['teleport', 'Ctrl-C', 'first pass'],
  ['teleport', '`--timeout`', 'first pass'],
  ['teleport', "the source's service and relay, killed", 'first pass'],
  ['teleport', "the destination's QEMU, killed", 'first pass'],
  ['teleport', "the source's QEMU, killed", 'first pass'],
  ['switch', '`vmmig cancel`', 'first pass'],
  ['switch', "the source's service and relay, killed", 'first pass'],
  ['switch', "the destination's QEMU, killed", 'first pass'],
];

const isShown = ({ mode, strike, phase }: Cell) =>
  isFull || shownAlways.some((each) => String(each) === String([mode, strike, phase]));

const cells = readFailureTable();

function shownCells(...modes: readonly TableMode[]) {
  const shown = cells.filter((cell) => modes.includes(cell.mode) && isShown(cell));
  return shown.map((cell) => [cell.mode, cell.strike, cell.phase, cell] as const);
}

const guestOptions = { memoryMiB: 192, data: { contents: 'random', filesMiB: 64, freeMiB: 16 } } as const;
const leftWithinMs = 40_000;

describe('The failure table', () => {
  it('has rows for all strikes, and no others', () => {
    expect(new Set(cells.map(({ strike }) => strike))).toEqual(new Set(Object.keys(strikes)));
  });

  it('has columns for all phases, and no others', () => {
    for (const [mode, known] of Object.entries(phases))
      expect(new Set(cells.filter((cell) => cell.mode === mode).map(({ phase }) => phase))).toEqual(
        new Set(Object.keys(known)),
      );
  });

  it('says what else vmmig says: exit codes where the guest is, and codes of errors that there are', () => {
    const exitCodes = {
      source: [1, 3, 4, 5, null],
      destination: [0, 6, null],
      waiting: [6],
      paused: [7, null],
      lost: [5, 6, 7],
    };
    for (const { outcomes } of cells) {
      const distinct = outcomes.map(({ where, exitCode }) => (exitCode === null ? where : exitCode));
      expect(new Set(distinct).size).toBe(outcomes.length);
      expect(new Set(outcomes.map(({ exitCode }) => exitCode === null)).size).toBe(1);
      for (const outcome of outcomes) {
        // What a daemon that was down has left there is all that `recover` finds then.
        if (outcome.where === 'source') expect(outcome.recovered?.where ?? 'source').toBe('source');
        for (const { where, exitCode, codes } of [outcome, outcome.recovered ?? outcome]) {
          expect(exitCodes[where]).toContain(exitCode);
          expect(Object.keys(errorCodes)).toEqual(expect.arrayContaining(codes.map((code) => `VMMIG_${code}`)));
          if (exitCode !== null) expect(codes.length > 0).toBe(exitCode !== 0);
        }
      }
    }
  });

  it('has the cells that are always shown', () => {
    for (const shown of shownAlways)
      expect(cells.filter(({ mode, strike, phase }) => String([mode, strike, phase]) === String(shown))).toHaveLength(
        1,
      );
  });
});

describe.each([
  { what: 'a guest', modes: ['teleport', 'switch'], sharedMemory: false },
  ...(isFull
    ? [{ what: 'a guest whose memory is in a file', modes: ['switchFile'], sharedMemory: true } as const]
    : []),
] as const)('Of $what, after', ({ modes, sharedMemory }) => {
  useLab(fastWan);

  const keeper: GuestKeeper = {
    start: async () => {
      const guest = await Guest.start('vm1', { ...guestOptions, sharedMemory });
      await guest.run('fill-cache');
      return guest;
    },
    end: async (host) => signalQemu(host, 'SIGKILL'),
    expectNothingLeft: (guest) => expectNothingLeft(guest === null ? [] : [guest], { timeoutMs: leftWithinMs }),
  };
  const struck = new StruckGuest(keeper);
  beforeAll(() => struck.makeSound());

  it.each(shownCells(...modes))(
    '%s: %s, in %s: it is as the table says',
    { timeout: 480_000 },
    async (_mode, _strike, _phase, cell) => await struck.expectCell(cell),
  );

  it('all that a migration works', { timeout: 120_000 }, async () => {
    await struck.makeSound();
    await struck.guest.teleport();
    await struck.guest.switch();
    await keeper.expectNothingLeft(struck.guest);
  });
});

describe.runIf(isFull).each([
  { what: 'a domain', mode: 'domain', sharedMemory: false },
  { what: 'a domain whose memory is in a file', mode: 'domainFile', sharedMemory: true },
] as const)('Of $what, after', ({ mode, sharedMemory }) => {
  useLab({ ...fastWan, libvirt: '9.0' });

  const keeper: GuestKeeper = {
    start: async () => {
      const guest = await Guest.start('vm1', { ...guestOptions, libvirt: true, sharedMemory });
      await guest.run('fill-cache');
      return guest;
    },
    end: async (host) => {
      const answers = await labExec(host, ['virsh', '--quiet', 'version'], { reject: false });
      if (answers.failed) await startDaemon(host);
      for (const verb of ['destroy', 'undefine']) await labExec(host, ['virsh', verb, 'vm1'], { reject: false });
    },
    expectNothingLeft: async (guest) => {
      await expectQuiet();
      if (guest === null) return;
      expect((await domainsOn(guest.host)).vm1).toBe('running');
      expect((await domainsOn(guest.otherHost)).vm1 ?? 'shut off').toBe('shut off');
    },
  };
  const struck = new StruckGuest(keeper);
  beforeAll(() => struck.makeSound());

  it.each(shownCells(mode))(
    '%s: %s, in %s: it is as the table says',
    { timeout: 480_000 },
    async (_mode, _strike, _phase, cell) => await struck.expectCell(cell),
  );

  it('all that a migration works', { timeout: 120_000 }, async () => {
    await struck.makeSound();
    await struck.guest.teleport(unsafe);
    await struck.guest.switch(unsafe);
    await keeper.expectNothingLeft(struck.guest);
    expect(await virsh(struck.guest.host, ['domstate', 'vm1'])).toBe('running');
  });
});
