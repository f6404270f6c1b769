/**
 * The commit point, explored: every order in which the hosts, the relays and the commands can act, with messages that
 * arrive late or never, and everything failing at every step.
 */
import { describe, expect, it } from 'vitest';
import { destinationStep, destinationTable } from '../../../host-service/commit/destination.js';
import { resolutionStep, resolutionTable } from '../../../host-service/commit/resolution.js';
import { sourceStep, sourceTable } from '../../../host-service/commit/source.js';
import { type Bounds, explore } from './explorer.js';
import { violationAfterRecovery, violationIn } from './invariants.js';
import type { Machines, Mode, World } from './world.js';

/** Every entry of the tables that was used, as `source held running`. */
const taken = new Set<string>();
const noted =
  <State extends string, Event extends string, Result>(name: string, step: (state: State, event: Event) => Result) =>
  (state: State, event: Event): Result => {
    taken.add(`${name} ${state} ${event}`);
    return step(state, event);
  };
const machines: Machines = {
  source: noted('source', sourceStep),
  destination: noted('destination', destinationStep),
  resolution: noted('resolution', resolutionStep),
};
const modes: readonly Mode[] = ['switch', 'teleport'];
/** A third failure takes minutes: in the full run only. */
const failures = process.env.VMMIG_TEST_FULL ? 3 : 2;
const timeoutMs = 10 * 60_000;

const check = (world: World) => violationIn(world) ?? violationAfterRecovery(world, machines);

describe.each(modes)('The commit point of %s', (mode) => {
  it('lets the guest run on the destination, in every order of events, when nothing fails', () => {
    const rests: World[] = [];
    const bounds: Bounds = { recoveries: 0, failures: 0 };
    const { violation } = explore(mode, machines, bounds, violationIn, (world) => rests.push(world));
    expect(violation).toBeNull();
    expect(rests.length).toBeGreaterThan(0);
    for (const { source, destination, commands } of rests) {
      expect([source.guest, destination.guest, commands[0]!.state]).toEqual(['gone', 'running', 'moved']);
    }
  });

  it(`keeps one guest and true reports, whatever ${failures} things fail, and a recover settles it`, {
    timeout: timeoutMs,
  }, () => {
    const { violation, worlds } = explore(mode, machines, { recoveries: 1, failures }, check);
    expect(violation).toBeNull();
    expect(worlds).toBeGreaterThan(50_000);
  });

  it(`does so too when two recovers race`, { timeout: timeoutMs }, () => {
    const { violation, worlds } = explore(mode, machines, { recoveries: 2, failures }, check);
    expect(violation).toBeNull();
    expect(worlds).toBeGreaterThan(30_000);
  });
});

describe('The tables', () => {
  it('have no entry that is never used, but answers to what must not be', () => {
    const tables = { source: sourceTable, destination: destinationTable, resolution: resolutionTable };
    const entries = Object.entries(tables).flatMap(([name, table]) =>
      Object.entries(table).flatMap(([state, row]) => Object.keys(row).map((event) => `${name} ${state} ${event}`)),
    );
    expect(entries.filter((entry) => !taken.has(entry))).toEqual([
      'source resumed release',
      'source released resume',
      'resolution releasing sourceResumed',
      'resolution resuming sourceReleased',
      'resolution clearing destinationRunning',
    ]);
  });
});
