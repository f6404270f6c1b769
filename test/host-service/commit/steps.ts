/** Everything that can happen next in a world: what the parts do, what may go wrong, and who else comes along. */
import { actOnDestination, actOnSource } from './actions.js';
import { rivalSteps } from './rivals.js';
import {
  type Destination,
  deliver,
  deliverOverLink,
  endCommand,
  type Machines,
  type NextWorld,
  startRecovery,
  toCommand,
  toDestination,
  toSource,
  type World,
  withDestination,
  withSource,
} from './world.js';

type Add = (label: string, world: World) => void;

/** @param recoveries - how many `vmmig recover` may come: one, at any time; or two, once the command is gone */
export function stepsFrom(world: World, machines: Machines, recoveries: 0 | 1 | 2): NextWorld[] {
  const steps: NextWorld[] = [];
  const add = (label: string, next: World, fails: boolean) => {
    if (next !== world) steps.push({ label, world: next, fails });
  };
  const well: Add = (label, next) => add(label, next, false);
  const ill: Add = (label, next) => add(label, next, true);
  for (const [index, next] of actOnSource(world, machines).entries())
    (index === 0 ? well : ill)(`source: ${world.source.todo[0]} (way ${index})`, next);
  for (const [index, next] of actOnDestination(world, machines).entries())
    (index === 0 ? well : ill)(`destination: ${world.destination.todo[0]} (way ${index})`, next);
  theMigrationGoesOn(world, machines, well);
  messagesArrive(world, machines, well);
  thingsBreak(world, machines, ill);
  commandsFail(world, machines, ill);
  recoveriesCome(world, recoveries, well);
  for (const { label, world: next, fails } of rivalSteps(world, machines)) add(label, next, fails);
  return steps;
}

/** What QEMU and the command do when nothing is wrong. */
function theMigrationGoesOn(world: World, machines: Machines, add: Add): void {
  const { mode, source, destination, commands } = world;
  const [command] = commands;
  if (mode === 'switch' && command!.state === 'watching' && !command!.triggered)
    add('command: switch over', {
      ...world,
      commands: commands.map((each, index) => (index === 0 ? { ...each, triggered: true } : each)),
    });
  // QEMU's migration was cancelled by whoever decided to keep the guest.
  const mayStop = source.guest === 'running' && source.decision !== 'kept';
  if (source.service === 'running' && mayStop && (mode === 'teleport' || command!.triggered))
    add('the guest stops on the source', toSource(withSource(world, { guest: 'paused' }), machines, 'guestStopped'));
  if (mode === 'switch' && source.service === 'stopped') add('all is ready', toSource(world, machines, 'commit'));
  if (mode === 'teleport' && source.service === 'stopped' && destination.service === 'loaded')
    add('all has arrived', toCommand(world, machines, 0, 'complete'));
  const loads = mode === 'switch' ? 'permitted' : 'loading';
  if (destination.service === loads && destination.guest === 'loading' && source.service !== 'running')
    add('QEMU has loaded', toDestination(withDestination(world, { guest: 'loaded' }), machines, 'loaded'));
}

function messagesArrive(world: World, machines: Machines, add: Add): void {
  for (const message of world.link) add(`link: ${message} arrives`, deliverOverLink(world, machines, message));
  for (const [index, { sent }] of world.commands.entries())
    for (const request of sent) add(`command ${index}: ${request} arrives`, deliver(world, machines, index, request));
}

function thingsBreak(world: World, machines: Machines, add: Add): void {
  const { source, destination, mode } = world;
  if (source.service !== null) {
    add('the source service crashes', withSource(world, { service: null, todo: [] }));
    add('the source loses its link or session', toSource(world, machines, 'abandon'));
    if (mode === 'switch') add('the source has its link again', toSource(world, machines, 'linkBack'));
  }
  if (destination.service !== null) {
    // The guard kills QEMU unless it was released; it never waits for the guest to run.
    const guest: Destination['guest'] = destination.guarded ? 'gone' : destination.guest;
    const crashed = withDestination(world, { service: null, todo: [], guarded: false });
    add('the destination service crashes', withDestination(crashed, { guest }));
    add('the destination service and its guard are killed', crashed);
    add('the destination loses its link or session', toDestination(world, machines, 'abandon'));
    if (mode === 'switch') add('the destination has its link again', toDestination(world, machines, 'linkBack'));
  }
  if (destination.guest !== 'gone') {
    const dead = withDestination(world, { guest: 'gone', died: true });
    add('QEMU ends on the destination', toDestination(dead, machines, 'failed'));
    const blank = { service: null, todo: [], decision: null, guest: 'gone', guarded: false } as const;
    add('the destination host restarts', withDestination(world, { ...blank, remembers: false, died: true }));
  }
}

function commandsFail(world: World, machines: Machines, add: Add): void {
  for (const [index, { state }] of world.commands.entries()) {
    if (state === 'absent' || state === 'dead') continue;
    add(`command ${index} is told to give up, or fails`, toCommand(world, machines, index, 'failed'));
    add(`command ${index} gets no answer`, toCommand(world, machines, index, 'silent'));
    add(`command ${index} dies`, endCommand(world, index));
  }
}

function recoveriesCome(world: World, recoveries: 0 | 1 | 2, add: Add): void {
  const [command, first, second] = world.commands;
  const mayCome = recoveries === 1 || (recoveries === 2 && command!.state === 'dead');
  if (mayCome && first!.state === 'absent') add('recover', startRecovery(world, 1));
  else if (recoveries === 2 && first!.state !== 'absent' && second!.state === 'absent')
    add('another recover', startRecovery(world, 2));
}
