/**
 * Two hosts, a link, and the commands that are at work, around one guest's commit point: the three machines of
 * `host-service/commit/` and everything else that can happen, one step at a time. Pure: a step gives a new world.
 *
 * A host has one service that acts for the migration, or none; a request finds it, or a new one that begins from what
 * is on the host, or (a `rival`) one that was started beside it and can use nothing but the decision and QEMU's end.
 * A request is under way until it is delivered, which may be never. An answer arrives at once or never: later it
 * would be as true, as commands rely only on answers that stay true.
 */
import {
  type DestinationAction,
  type DestinationEvent,
  type DestinationState,
  destinationFrom,
} from '../../../host-service/commit/destination.js';
import type { Step } from '../../../host-service/commit/machine.js';
import type { ResolutionAction, ResolutionEvent, ResolutionState } from '../../../host-service/commit/resolution.js';
import {
  type SourceAction,
  type SourceEvent,
  type SourceState,
  sourceFrom,
} from '../../../host-service/commit/source.js';

export interface Machines {
  readonly source: (state: SourceState, event: SourceEvent) => Step<SourceState, SourceAction>;
  readonly destination: (state: DestinationState, event: DestinationEvent) => Step<DestinationState, DestinationAction>;
  readonly resolution: (state: ResolutionState, event: ResolutionEvent) => Step<ResolutionState, ResolutionAction>;
}

export type Mode = 'switch' | 'teleport';
export type Request = 'abandon' | 'release' | 'resume' | 'commit' | 'ask' | 'go';
/** A request in the hands of a rival service, which has decided and has yet to act. */
export type Rivalry = 'keeping' | 'ending';

export interface Command {
  readonly state: ResolutionState | 'absent' | 'dead';
  /** Under way to a host. */
  readonly sent: readonly Request[];
  readonly rivals: readonly Rivalry[];
  /** It has asked the source to commit. */
  readonly triggered: boolean;
}

export interface World {
  readonly mode: Mode;
  readonly source: {
    readonly service: SourceState | null;
    readonly todo: readonly SourceAction[];
    readonly decision: 'held' | 'kept' | null;
    readonly guest: 'running' | 'paused' | 'gone';
  };
  readonly destination: {
    readonly service: DestinationState | null;
    readonly todo: readonly DestinationAction[];
    readonly decision: 'run' | 'end' | null;
    readonly guest: 'loading' | 'loaded' | 'running' | 'gone';
    readonly guarded: boolean;
    readonly remembers: boolean;
    /** QEMU, or the host, has ended by itself. */
    readonly died: boolean;
  };
  /** Under way between the relays. */
  readonly link: readonly ('go' | 'running' | 'refused')[];
  readonly commands: readonly Command[];
  /** Permission for the destination is under way, or has been. */
  readonly goSent: boolean;
  /** The guest has run on the destination. */
  readonly ran: boolean;
  /** What must never happen, and has. */
  readonly wrong: string | null;
}

export interface NextWorld {
  readonly label: string;
  readonly world: World;
  /** Something goes wrong in this step. */
  readonly fails: boolean;
}

export type Source = World['source'];
export type Destination = World['destination'];

export function firstWorld(mode: Mode): World {
  const command = { sent: [], rivals: [], triggered: false } as const;
  return {
    mode,
    source: { service: 'running', todo: [], decision: null, guest: 'running' },
    destination: {
      service: 'loading',
      todo: [],
      decision: null,
      guest: 'loading',
      guarded: true,
      remembers: true,
      died: false,
    },
    link: [],
    commands: [
      { ...command, state: 'watching' },
      { ...command, state: 'absent' },
      { ...command, state: 'absent' },
    ],
    goSent: false,
    ran: false,
    wrong: null,
  };
}

export const withSource = (world: World, changes: Partial<Source>): World => ({
  ...world,
  source: { ...world.source, ...changes },
});

export const withDestination = (world: World, changes: Partial<Destination>): World => ({
  ...world,
  destination: { ...world.destination, ...changes },
});

export const withCommand = (world: World, index: number, changes: Partial<Command>): World => ({
  ...world,
  commands: world.commands.map((command, at) => (at === index ? { ...command, ...changes } : command)),
});

export const added = <T extends string>(set: readonly T[], item: T): readonly T[] =>
  set.includes(item) ? set : [...set, item].sort();

export const without = <T extends string>(set: readonly T[], item: T): readonly T[] =>
  set.filter((other) => other !== item);

/** Hands an event to the source's service; it is busy until its actions are done, so the new ones come last. */
export function toSource(world: World, machines: Machines, event: SourceEvent): World {
  const { service, todo } = world.source;
  if (service === null) return world;
  const { state, actions } = machines.source(service, event);
  if (state === service && actions.length === 0) return world;
  return withSource(world, { service: state, todo: [...todo, ...actions] });
}

export function toDestination(world: World, machines: Machines, event: DestinationEvent): World {
  const { service, todo } = world.destination;
  if (service === null) return world;
  const { state, actions } = machines.destination(service, event);
  if (state === service && actions.length === 0) return world;
  return withDestination(world, { service: state, todo: [...todo, ...actions] });
}

const requests: Record<ResolutionAction, Request> = {
  askToHold: 'commit',
  handOnGo: 'go',
  sendAbandon: 'abandon',
  sendAsk: 'ask',
  sendRelease: 'release',
  sendResume: 'resume',
};

export function toCommand(world: World, machines: Machines, index: number, event: ResolutionEvent): World {
  const command = world.commands[index]!;
  if (command.state === 'absent' || command.state === 'dead') return world;
  const { state, actions } = machines.resolution(command.state, event);
  if (state === command.state) return world;
  const sent = actions.reduce((all, action) => added(all, requests[action]), command.sent);
  const next = withCommand(world, index, { state, sent, triggered: command.triggered || sent.includes('commit') });
  return actions.includes('handOnGo') ? { ...next, goSent: true } : next;
}

export function startRecovery(world: World, index: number): World {
  return withCommand(world, index, { state: 'askingSource', sent: ['abandon'], triggered: true });
}

export const endCommand = (world: World, index: number): World => withCommand(world, index, { state: 'dead' });

/** Tells every command that would hear it now. */
export function tellCommands(world: World, machines: Machines, event: ResolutionEvent): World {
  return world.commands.reduce((next, _, index) => toCommand(next, machines, index, event), world);
}

/** The source's service as a request finds it: the one that is there, or a new one. */
export function withSourceService(world: World): World {
  const { service, decision, guest } = world.source;
  if (service !== null) return world;
  return withSource(world, { service: sourceFrom({ decision, guest }), todo: [] });
}

export function withDestinationService(world: World): World {
  const { service, decision, guest, remembers } = world.destination;
  if (service !== null) return world;
  const seen = guest === 'loading' || guest === 'loaded' ? 'waiting' : guest;
  return withDestination(world, { service: destinationFrom({ remembers, decision, guest: seen }), todo: [] });
}

/** Delivers a request of a command to the host's service. */
export function deliver(world: World, machines: Machines, index: number, request: Request): World {
  const taken = withCommand(world, index, { sent: without(world.commands[index]!.sent, request) });
  if (request === 'ask' || request === 'go') return toDestination(withDestinationService(taken), machines, request);
  return toSource(withSourceService(taken), machines, request);
}

/** A message from one relay to the other; without a service there it is lost. */
export function deliverOverLink(world: World, machines: Machines, message: World['link'][number]): World {
  const taken = { ...world, link: without(world.link, message) };
  return message === 'go' ? toDestination(taken, machines, message) : toSource(taken, machines, message);
}
