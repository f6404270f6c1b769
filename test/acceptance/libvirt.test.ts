/** Guests that libvirt manages: it keeps both ends, whatever becomes of the move, and vmmig brings the stream. */
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { labExec, setWan, virsh } from '../../lab/index.js';
import type { GuestList } from '../../migrate/index.js';
import { domainsOn, expectQuiet, expectToRunOnce, isPersistent, refusals, startDomain, unsafe } from './domains.js';
import { readFailureTable } from './failureTable.js';
import { reportDocument } from './reportSchema.js';
import { fastWan, type Guest, isFull, kill, type Move, processes, processOn, useLab } from './rig.js';
import { strikes } from './strikes.js';

/** So slow that pre-copy lasts for as long as it takes to break something. */
const slowWan = { rttMs: 10, rateBps: 20e6 } as const;
/** Of the failure table; the others differ from these in who dies, not in what libvirt has to put in order. */
const shownAlways = /^Ctrl-C|^the source's service/;
const noErrors = /\berrors 0\b/;

describe('A domain', () => {
  let guest: Guest;
  let counted: number;

  useLab({ ...fastWan, libvirt: '9.0' });

  beforeAll(async () => {
    guest = await startDomain('vm1');
  });

  beforeEach(async () => {
    counted = await guest.count();
  });

  it('is teleported with its page cache, and leaves its configuration as virsh would', {
    timeout: 60_000,
  }, async () => {
    await guest.run('pattern start 16 2000');
    const { report } = await guest.teleport(unsafe);
    expect(report.pages.teleported).toBeGreaterThan(10_000);
    expect(report.pages.mismatched).toBe(0);
    expect(await guest.run('pattern status')).toMatch(noErrors);
    await guest.run('pattern stop');
    expect(await domainsOn('hostA')).toEqual({ vm1: 'shut off' });
    expect(await domainsOn('hostB')).toEqual({ vm1: 'running' });
    expect(await isPersistent('hostB', 'vm1')).toBe(false);
    await expectQuiet();
  });

  it('keeps its configuration where it goes, and not where it was, when that is asked for', {
    timeout: 60_000,
  }, async () => {
    const from = guest.host;
    const { report } = await guest.teleport(unsafe, '--persistent', '--undefine-source');
    expect(reportDocument.parse(report)).toEqual(report);
    expect(await domainsOn(from)).toEqual({});
    expect(await domainsOn(guest.host)).toEqual({ vm1: 'running' });
    expect(await isPersistent(guest.host, 'vm1')).toBe(true);
    await expectQuiet();
  });

  it('is listed once, where it runs', async () => {
    const { stdout } = await labExec('hostA', ['vmmig', 'list', '--json']);
    const { guests } = JSON.parse(stdout) as GuestList;
    expect(guests).toMatchObject([{ vm: 'vm1', host: guest.host, state: 'running', problem: null }]);
  });

  it('is refused beforehand for what libvirt would refuse it for', { timeout: 60_000 }, async () => {
    expect(await refusals(guest, unsafe)).toEqual([]);
    expect(await refusals(guest)).toEqual(['VMMIG_LIBVIRT_UNSAFE']);
    await virsh(guest.host, ['suspend', 'vm1']);
    expect(await refusals(guest, unsafe)).toEqual(['VMMIG_GUEST_NOT_RUNNING']);
    await virsh(guest.host, ['resume', 'vm1']);
    await guest.expectToRun(counted);
  });

  /** Starts a move in which the page cache is sent over a slow link. */
  async function beginSlowly(...more: string[]): Promise<Move> {
    await setWan(slowWan);
    const move = guest.begin(unsafe, '--no-agent', ...more);
    await move.untilPagesMove();
    return move;
  }

  it.each(
    readFailureTable().filter(
      ({ mode, phase, strike }) => mode === 'domain' && phase === 'teleport, first pass' && shownAlways.test(strike),
    ),
  )('stays where it is after $strike', { timeout: 90_000 }, async ({ strike, outcomes: [outcome] }) => {
    const move = await beginSlowly();
    await strikes[strike]!.strike!(move, guest);
    const { exitCode, report, stderr } = await move.ended;
    const result = outcome!.exitCode === 3 ? 'cancelled' : 'failed';
    expect(report, stderr).toMatchObject({ result, vmLocation: 'source', verified: null });
    expect(exitCode).toBe(outcome!.exitCode);
    await expectToRunOnce(guest, counted);
    await setWan(fastWan);
  });

  /** Starts a move and waits until the guest is held, and the word that it may run is on its way. */
  async function beginToCommit(): Promise<Move> {
    await setWan({ rttMs: 1500, rateBps: 1e9 });
    const move = guest.begin(unsafe);
    await move.until((event) => event.type === 'phase' && event.name === 'verify' && event.state === 'begin');
    await sleep(300);
    return move;
  }

  it.runIf(isFull)(
    'is found by "vmmig recover" when all of the source’s vmmig died',
    { timeout: 120_000 },
    async () => {
      const move = await beginToCommit();
      await kill(guest.host, await processOn(guest.host, processes.service));
      await kill(guest.host, await processOn(guest.host, processes.commandLine));
      await move.ended;
      await expect.poll(async () => (await domainsOn(guest.otherHost)).vm1, { timeout: 20_000 }).toBe('running');
      // libvirt was not told that it has moved, and not that it has not.
      expect((await domainsOn(guest.host)).vm1).toBe('paused');
      await setWan(fastWan);
      const recovered = await labExec(guest.host, ['vmmig', 'recover', 'vm1', '--json'], { reject: false });
      expect(recovered.exitCode, recovered.stderr).toBe(0);
      guest.host = guest.otherHost;
      await expectToRunOnce(guest, counted);
    },
  );

  it('can be moved after all that', { timeout: 60_000 }, async () => {
    await guest.teleport(unsafe);
    await expectQuiet();
  });
});
