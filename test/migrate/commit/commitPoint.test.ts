/**
 * The commit point, explored: every order in which the hosts, the relays and the commands can act, with messages that
 * arrive late or never, and everything failing at every step.
 */
import { describe, expect, it } from 'vitest';
import { destinationStep, destinationTable } from '../../../migrate/commit/destination.js';
import { resolutionStep, resolutionTable } from '../../../migrate/commit/resolution.js';
import { sourceStep, sourceTable } from '../../../migrate/commit/source.js';
import { type Bounds, explore } from './explorer.js';
import { violationAfterRecovery, violationIn } from './invariants.js';
import type { Machines, Mode, World } from './world.js';

const machines: Machines = { source: sourceStep, destination: destinationStep, resolution: resolutionStep };
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
    const { violation, worlds, states } = explore(mode, machines, { recoveries: 1, failures }, check);
    expect(violation).toBeNull();
    expect(worlds).toBeGreaterThan(50_000);
    expect([...states].sort()).toEqual(expectedStates(mode));
  });

  it(`does so too when two recovers race`, { timeout: timeoutMs }, () => {
    const { violation, worlds } = explore(mode, machines, { recoveries: 2, failures }, check);
    expect(violation).toBeNull();
    expect(worlds).toBeGreaterThan(30_000);
  });
});

/** All there are: a state that no test reaches has not been tested. */
function expectedStates(mode: Mode): string[] {
  const all = [
    ...Object.keys(sourceTable).map((state) => `source ${state}`),
    ...Object.keys(destinationTable).map((state) => `destination ${state}`),
    ...Object.keys(resolutionTable).map((state) => `resolution ${state}`),
    'resolution absent',
    'resolution dead',
  ];
  // `teleport` has loaded before it commits, and its command carries `go`.
  const notIn: Record<Mode, string[]> = {
    switch: ['destination loaded', 'resolution holding', 'resolution committing'],
    teleport: ['destination permitted'],
  };
  return all.filter((state) => !notIn[mode].includes(state)).sort();
}
