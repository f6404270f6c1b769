/** Does to a guest's migration what a cell of docs/failures.md says, and compares what becomes of it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import { type HostName, healWan, hostNames, labExec, setWan } from '../../lab/index.js';
import type { GuestList, MigrationReport } from '../../migrate/index.js';
import type { Cell, Expectation, TableOutcome } from './failureTable.js';
import { find } from './hostProcesses.js';
import { phases, signalQemu } from './phases.js';
import { reportDocument } from './reportSchema.js';
import { fastWan, type Guest, type Move, type Outcome, processes } from './rig.js';
import { type Strike, strikes } from './strikes.js';

const settledWithinMs = 180_000;
const whileStoppedMs = 1_000;

/** What is found of a guest whose QEMUs have been ended. */
const ended: Expectation = { where: 'lost', exitCode: 7, codes: ['GUEST_ENDED'] };

/** What differs between guests. */
export interface GuestKeeper {
  /** Starts it, or starts it anew, where no QEMU and no service is any more. */
  start(): Promise<Guest>;
  /** Ends it on a host, whatever state it is in there. */
  end(host: HostName): Promise<void>;
  /** Of a guest that runs, or of one that has been ended: null. */
  expectNothingLeft(guest: Guest | null): Promise<void>;
}

/** The guest of one lab, struck again and again. */
export class StruckGuest {
  guest!: Guest;
  /** The cell before has left the guest as it should. */
  isSound = false;
  readonly #keeper: GuestKeeper;

  constructor(keeper: GuestKeeper) {
    this.#keeper = keeper;
  }

  /** As it is meant to be, whatever has become of it. */
  async makeSound(): Promise<void> {
    if (this.isSound) return;
    for (const host of hostNames) {
      for (const pid of find(host, processes.service)) process.kill(pid, 'SIGKILL');
      await this.#keeper.end(host);
      await labExec(host, ['sh', '-c', 'rm -rf /run/vmmig/* /var/lib/libvirt/qemu/vmmig-*']);
    }
    await setWan(fastWan);
    this.guest = await this.#keeper.start();
    this.isSound = true;
  }

  /** Afterwards `guest.host` is where it runs. */
  async expectCell({ mode, strike, phase, outcomes }: Cell): Promise<void> {
    const blow = strikes[strike]!;
    await this.makeSound();
    this.isSound = false;
    const { guest } = this;
    const from = guest.host;
    const counted = await guest.count();
    await blow.before?.(guest);
    const agent = blow.withAgent ? [] : ['--no-agent'];
    const begin = phases[mode][phase]!;
    const outcome = await this.#strike(blow, phase, () => begin(guest, [...agent, ...(blow.options?.(guest) ?? [])]));
    await setWan(fastWan);
    const became = await this.#whichOf(outcomes, outcome, from);
    if (became.exitCode !== null) expectReport(became, outcome.report, outcome.stderr);
    await this.#expectGuest(became, from, counted);
    if (became.recovered !== null) await this.#recover(became.recovered, from, counted);
    const { where } = became.recovered ?? became;
    // What is left to be ended is the operator's.
    if (where === 'lost' || where === 'paused') {
      for (const host of hostNames) await this.#keeper.end(host);
      if (where === 'paused') await this.#recover(ended, from, counted);
      return await this.#keeper.expectNothingLeft(null);
    }
    if (phase === 'later pass') await guest.run('pattern stop');
    await this.#keeper.expectNothingLeft(guest);
    this.isSound = blow.spoilsGuest !== true;
  }

  async #strike({ strike, after }: Strike, phase: string, begin: () => Promise<Move>): Promise<Outcome> {
    try {
      const move = await begin();
      const struck = strike?.(move, this.guest);
      if (phase === 'run') {
        // What waits for the migration's end waits for the destination's QEMU.
        await Promise.race([struck, sleep(whileStoppedMs)]);
        for (const host of hostNames) signalQemu(host, 'SIGCONT');
      }
      await struck;
      // The rest of the guest's memory need not take its time.
      if (phase.endsWith('pull') && after === undefined) await setWan(fastWan);
      return await move.ended;
    } finally {
      await after?.(this.guest);
      await healWan();
    }
  }

  /** What has become of it, of all that may. */
  async #whichOf(outcomes: readonly TableOutcome[], { exitCode, stderr }: Outcome, from: HostName) {
    const [first, ...others] = outcomes as [TableOutcome, ...TableOutcome[]];
    if (first.exitCode !== null) {
      const found = outcomes.filter((outcome) => outcome.exitCode === exitCode);
      expect(found, `exit code ${exitCode}; ${stderr}`).toHaveLength(1);
      return found[0]!;
    }
    if (others.length === 0) return first;
    for (const deadline = Date.now() + settledWithinMs; ; await sleep(500)) {
      for (const outcome of outcomes) {
        const host = outcome.where === 'source' ? from : this.guest.otherHost;
        if ((await stateOn(host, this.guest.name)) === 'running') return outcome;
      }
      if (Date.now() > deadline) throw new Error('the guest runs on neither host');
    }
  }

  async #expectGuest({ where }: Expectation, from: HostName, counted: number): Promise<void> {
    const { guest } = this;
    const to = from === 'hostA' ? 'hostB' : 'hostA';
    if (where === 'source' || where === 'destination') {
      guest.host = where === 'source' ? from : to;
      await guest.expectToRun(counted);
    } else if (where === 'waiting') {
      expect(await stateOn(from, guest.name)).not.toBe('running');
    } else if (where === 'paused') {
      // Its monitor is the service's, while that waits for the link.
      expect(await stateOn(from, guest.name)).toMatch(/^(paused|postmigrate|finish-migrate|unknown)$/);
      expect(await stateOn(to, guest.name)).not.toBe('running');
    } else for (const host of hostNames) expect(await stateOn(host, guest.name)).not.toBe('running');
  }

  async #recover(expected: Expectation, from: HostName, counted: number): Promise<void> {
    const argv = ['vmmig', 'recover', this.guest.name, '--json'] as const;
    const { exitCode, stdout, stderr } = await labExec(from, [...argv], { reject: false });
    expect(exitCode, stderr).toBe(expected.exitCode);
    expectReport(expected, JSON.parse(stdout) as MigrationReport, stderr);
    await this.#expectGuest(expected, from, counted);
  }
}

function expectReport({ where, codes, exitCode }: Expectation, report: MigrationReport, stderr: string): void {
  expect(reportDocument.parse(report)).toEqual(report);
  if (codes.length === 0) expect(report.error, stderr).toBeNull();
  else expect(codes.map((code) => `VMMIG_${code}`)).toContain(report.error?.code);
  // Of a guest that is lost: where its QEMU is, when it has one.
  const lostAt = exitCode === 6 ? 'destination' : 'unknown';
  const vmLocation = { waiting: 'destination', paused: 'unknown', lost: lostAt }[where as string] ?? where;
  expect(report.vmLocation).toBe(vmLocation);
}

/** What QEMU calls the guest on a host; null when none answers. */
async function stateOn(host: HostName, name: string): Promise<string | null> {
  const { stdout } = await labExec(host, ['vmmig', 'list', '--json']);
  const { guests } = JSON.parse(stdout) as GuestList;
  const found = guests.find(({ vm, host: where }) => vm === name && where === host);
  return found?.state ?? null;
}
