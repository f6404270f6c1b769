/** What carrying out an action may come to: one world for each way that it can go. */
import type { DestinationAction } from '../../../host-service/commit/destination.js';
import type { SourceAction } from '../../../host-service/commit/source.js';
import {
  added,
  type Machines,
  tellCommands,
  toDestination,
  toSource,
  type World,
  withDestination,
  withSource,
} from './world.js';

/** Carries out the source's next action. The first world is the one in which it goes well. */
export function actOnSource(before: World, machines: Machines): World[] {
  const [action, ...todo] = before.source.todo;
  if (action === undefined) return [];
  const world = withSource(before, { todo });
  const { decision, guest } = world.source;
  const then = (event: Parameters<typeof toSource>[2], changes: Partial<World['source']> = {}) =>
    toSource(withSource(world, changes), machines, event);
  const ways: Record<SourceAction, () => World[]> = {
    writeHeld: () =>
      decision === 'kept'
        ? [then('keptStands'), then('writeFailed')]
        : [then('wroteHeld', { decision: 'held' }), then('writeFailed'), then('writeFailed', { decision: 'held' })],
    writeKept: () =>
      decision === 'held'
        ? [then('heldStands'), then('writeFailed')]
        : [then('wroteKept', { decision: 'kept' }), then('writeFailed'), then('writeFailed', { decision: 'kept' })],
    resumeGuest: () => {
      if (guest === 'gone') return [then('resumeFailed')];
      return [
        then('guestResumed', { guest: 'running' }),
        then('resumeFailed'),
        then('resumeFailed', { guest: 'running' }),
      ];
    },
    endQemu: () => {
      const wrong = guest === 'running' ? 'the source ended a guest that ran there' : world.wrong;
      const ended = { ...withSource(world, { guest: 'gone' }), wrong };
      return [toSource(ended, machines, 'qemuEnded'), then('endFailed'), toSource(ended, machines, 'endFailed')];
    },
    sendGo: () => {
      // `teleport` hands it to the command, which sends it on.
      if (world.mode === 'teleport') return [tellCommands(world, machines, 'sourceHeld')];
      return [{ ...world, goSent: true, link: added(world.link, 'go') }];
    },
    tellHeld: () => [tellCommands(world, machines, 'sourceHeld')],
    tellResumed: () => [tellCommands(world, machines, 'sourceResumed')],
    tellReleased: () => [tellCommands(world, machines, 'sourceReleased')],
    tellFailed: () => [tellCommands(world, machines, 'sourceFailed')],
  };
  return ways[action]();
}

/** Carries out the destination's next action. The first world is the one in which it goes well. */
export function actOnDestination(before: World, machines: Machines): World[] {
  const [action, ...todo] = before.destination.todo;
  if (action === undefined) return [];
  const world = withDestination(before, { todo });
  const { decision, guest, remembers } = world.destination;
  const then = (event: Parameters<typeof toDestination>[2], changes: Partial<World['destination']> = {}) =>
    toDestination(withDestination(world, changes), machines, event);
  const ways: Record<DestinationAction, () => World[]> = {
    writeRun: () =>
      decision === 'end'
        ? [then('endStands'), then('writeFailed')]
        : [then('wroteRun', { decision: 'run' }), then('writeFailed'), then('writeFailed', { decision: 'run' })],
    writeEnd: () =>
      decision === 'run'
        ? [then('runStands'), then('writeFailed')]
        : [then('wroteEnd', { decision: 'end' }), then('writeFailed'), then('writeFailed', { decision: 'end' })],
    releaseGuard: () => [withDestination(world, { guarded: false })],
    startGuest: () => {
      if (guest === 'gone') return [then('startSilent')];
      if (guest === 'running') return [then('guestStarted')];
      const started = { ...withDestination(world, { guest: 'running' }), ran: true };
      return [
        toDestination(started, machines, 'guestStarted'),
        toDestination(started, machines, 'startSilent'),
        then('startSilent'),
        then('startRefused'),
      ];
    },
    lookAtGuest: () => {
      if (guest === 'running') return [then('guestRuns'), then('guestGone')];
      if (guest === 'gone' || !remembers) return [then('guestGone')];
      return [then('guestWaits'), then('guestGone')];
    },
    endQemu: () => {
      const wrong = guest === 'running' ? 'the destination ended a guest that ran there' : world.wrong;
      const ended = { ...withDestination(world, { guest: 'gone', guarded: false }), wrong };
      return [
        toDestination(ended, machines, 'qemuEnded'),
        then('endFailed'),
        toDestination(ended, machines, 'endFailed'),
      ];
    },
    tellRunning: () => [tell(world, machines, 'running')],
    tellRefused: () => [tell(world, machines, 'refused')],
    tellUnknown: () => [tellCommands(world, machines, 'destinationUnknown')],
  };
  return ways[action]();
}

function tell(world: World, machines: Machines, answer: 'running' | 'refused'): World {
  const told = tellCommands(world, machines, answer === 'running' ? 'destinationRunning' : 'destinationRefused');
  return world.mode === 'switch' ? { ...told, link: added(told.link, answer) } : told;
}
