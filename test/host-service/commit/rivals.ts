/**
 * Services beside the one that acts: a request that does not find that one is carried out by another, which has only the
 * decision on disk to go by. It decides first and acts then, and anything may happen in between.
 */
import {
  added,
  type Machines,
  type NextWorld,
  toCommand,
  type World,
  withCommand,
  withDestination,
  without,
  withSource,
} from './world.js';

export function rivalSteps(world: World, machines: Machines): NextWorld[] {
  return world.commands.flatMap(({ sent, rivals }, index) => {
    const steps: NextWorld[] = [];
    if (sent.includes('abandon') && world.source.service !== null)
      steps.push({ label: `rival ${index}: keeps`, world: keep(world, machines, index), fails: true });
    if (sent.includes('ask') && world.destination.service !== null && world.destination.remembers)
      steps.push({ label: `rival ${index}: ends`, world: end(world, machines, index), fails: true });
    if (rivals.includes('keeping'))
      steps.push({ label: `rival ${index}: lets the guest run`, world: resume(world, machines, index), fails: false });
    if (rivals.includes('ending'))
      steps.push({ label: `rival ${index}: ends QEMU`, world: endQemu(world, machines, index), fails: false });
    return steps;
  });
}

function keep(world: World, machines: Machines, index: number): World {
  const { sent, rivals } = world.commands[index]!;
  const taken = withCommand(world, index, { sent: without(sent, 'abandon') });
  const isHeld = world.source.decision === 'held';
  const { actions } = machines.source('keeping', isHeld ? 'heldStands' : 'wroteKept');
  if (!actions.includes('resumeGuest')) return toCommand(taken, machines, index, 'sourceHeld');
  const decided = isHeld ? taken : withSource(taken, { decision: 'kept' });
  return withCommand(decided, index, { rivals: added(rivals, 'keeping') });
}

function resume(world: World, machines: Machines, index: number): World {
  const taken = withCommand(world, index, { rivals: without(world.commands[index]!.rivals, 'keeping') });
  if (world.source.guest === 'gone') return toCommand(taken, machines, index, 'sourceReleased');
  return toCommand(withSource(taken, { guest: 'running' }), machines, index, 'sourceResumed');
}

function end(world: World, machines: Machines, index: number): World {
  const { sent, rivals } = world.commands[index]!;
  const { decision, guest } = world.destination;
  const taken = withCommand(world, index, { sent: without(sent, 'ask') });
  const isRun = decision === 'run';
  const { actions } = machines.destination('closing', isRun ? 'runStands' : 'wroteEnd');
  if (!actions.includes('endQemu'))
    return toCommand(taken, machines, index, guest === 'running' ? 'destinationRunning' : 'destinationUnknown');
  const decided = isRun ? taken : withDestination(taken, { decision: 'end' });
  return withCommand(decided, index, { rivals: added(rivals, 'ending') });
}

function endQemu(world: World, machines: Machines, index: number): World {
  const taken = withCommand(world, index, { rivals: without(world.commands[index]!.rivals, 'ending') });
  const wrong = world.destination.guest === 'running' ? 'a rival ended a guest that ran' : world.wrong;
  const ended = { ...withDestination(taken, { guest: 'gone', guarded: false }), wrong };
  return toCommand(ended, machines, index, 'destinationRefused');
}
