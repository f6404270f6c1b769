import { describe, expect, it } from 'vitest';
import { Interrupts } from '../../cli/interrupts.js';
import type { ProgressEvent } from '../../migrate/progress.js';
import { phaseEvent, startEvent } from './support/scriptedMigration.js';

function interrupted(events: readonly ProgressEvent[], presses: number) {
  const said: string[] = [];
  const exits: number[] = [];
  const interrupts = new Interrupts({ say: (line) => said.push(line), forceExit: (code) => exits.push(code) });
  for (const event of events) interrupts.observe(event);
  for (let press = 0; press < presses; press++) interrupts.interrupt();
  return { said, exits, aborted: interrupts.signal.aborted };
}

const copying = [startEvent, phaseEvent('precopy', 'begin', 10)];
const switching = [...copying, phaseEvent('switch-over', 'begin', 20)];
const committing = [...switching, phaseEvent('verify', 'begin', 30)];
const committed = [...committing, phaseEvent('verify', 'end', 40), phaseEvent('release source', 'begin', 40)];

describe('Ctrl-C', () => {
  it('cancels before the commit point, and says where the guest stays', () => {
    for (const events of [[], copying, switching]) {
      const { said, aborted } = interrupted(events, 1);
      expect(aborted).toBe(true);
      expect(said).toHaveLength(1);
    }
    expect(interrupted(copying, 1).said[0]).toMatch(/^Cancelling: vm1 stays on hostA/);
  });

  it('promises nothing while the guest is being handed over, nor when that has just failed', () => {
    for (const events of [committing, [...committing, phaseEvent('verify', 'end', 40)]]) {
      const { said, aborted } = interrupted(events, 1);
      expect(aborted).toBe(true);
      expect(said[0]).toMatch(/^Cancelling, unless it is too late: .* The report will say where it is\.$/);
    }
  });

  it('cancels nothing after the commit point, and says why', () => {
    const { said, aborted } = interrupted(committed, 1);
    expect(aborted).toBe(false);
    expect(said[0]).toMatch(/^Not cancelling: vm1 has been handed over to hostB, .* could leave it running twice/);
  });

  it('says the second time what leaving would cost, and leaves nothing undone yet', () => {
    expect(interrupted(copying, 2).exits).toEqual([]);
    expect(interrupted(copying, 2).said[1]).toMatch(
      /does not stop vm1 on hostA, but may leave a waiting QEMU on hostB.*once more/,
    );
    expect(interrupted(switching, 2).said[1]).toMatch(/may leave it paused on hostA/);
    expect(interrupted(committed, 2).said[1]).toMatch(/vm1 runs on hostB.*paused copy.*hostA/);
  });

  it('leaves the third time, with the exit code that says where the guest is', () => {
    expect(interrupted(copying, 3).exits).toEqual([3]);
    expect(interrupted(switching, 3).exits).toEqual([7]);
    expect(interrupted(committed, 3).exits).toEqual([7]);
  });
});

describe('Ctrl-C during the pull of a switch', () => {
  const pulling = [startEvent, phaseEvent('switch-over', 'begin', 20), phaseEvent('pull', 'begin', 30)];

  function pressed(events: readonly ProgressEvent[], presses: number, before = 0) {
    const said: string[] = [];
    const exits: number[] = [];
    const interrupts = new Interrupts({ say: (line) => said.push(line), forceExit: (code) => exits.push(code) });
    for (let press = 0; press < before; press++) interrupts.interrupt();
    for (const event of events) interrupts.observe(event);
    for (let press = 0; press < presses; press++) interrupts.interrupt();
    return { said, exits, left: interrupts.leave.aborted, aborted: interrupts.signal.aborted };
  }

  it('says that the guest runs on the destination, and that stopping would not stop the pull', () => {
    const { said, left, aborted } = pressed(pulling, 1);
    expect(said).toEqual([expect.stringMatching(/^Not cancelling: vm1 runs on hostB.*hostA.*would not stop the pull/)]);
    expect([left, aborted]).toEqual([false, false]);
  });

  it('leaves the second time, so that a report is written, and at once the third time', () => {
    expect(pressed(pulling, 2)).toMatchObject({ left: true, exits: [], aborted: false });
    expect(pressed(pulling, 3).exits).toEqual([6]);
  });

  it('does not take what was pressed for cancelling as a wish to leave', () => {
    expect(pressed(pulling, 0, 2)).toMatchObject({ left: false });
    expect(pressed(pulling, 1, 2)).toMatchObject({ left: true });
  });
});

describe('Ctrl-C during a recovery', () => {
  it('cancels nothing, and leaves the second time without a claim where the guest is', () => {
    const said: string[] = [];
    const exits: number[] = [];
    const hooks = { say: (line: string) => void said.push(line), forceExit: (code: number) => void exits.push(code) };
    const interrupts = new Interrupts(hooks, 'resolving');
    interrupts.observe(startEvent);
    interrupts.observe(phaseEvent('switch-over', 'begin', 20));
    interrupts.interrupt();
    expect(said[0]).toMatch(/^Not stopping yet/);
    expect(interrupts.signal.aborted).toBe(false);
    interrupts.interrupt();
    expect(exits).toEqual([7]);
  });
});

describe('SIGTERM', () => {
  it('asks once, however often it comes', () => {
    const said: string[] = [];
    const exits: number[] = [];
    const interrupts = new Interrupts({ say: (line) => said.push(line), forceExit: (code) => exits.push(code) });
    for (let time = 0; time < 5; time++) interrupts.terminate();
    expect(said).toHaveLength(1);
    expect(exits).toEqual([]);
    expect(interrupts.signal.aborted).toBe(true);
  });
});
