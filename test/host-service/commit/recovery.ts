/** One more `recover`, which reaches both hosts and where nothing fails any more. */
import { actOnDestination, actOnSource } from './actions.js';
import { deliver, deliverOverLink, type Machines, startRecovery, type World } from './world.js';

/**
 * The world in which it has ended; it is the last of the commands there, and the others are gone.
 * @param late - whether what is under way between the relays arrives after it instead of before
 */
export function recovered(world: World, machines: Machines, late: boolean): World {
  const gone = world.commands.map((command) => ({ ...command, state: 'dead' as const, sent: [], rivals: [] }));
  const alone: World = { ...world, commands: [...gone, { state: 'absent', sent: [], rivals: [], triggered: false }] };
  // What is being said already is no answer to the new question.
  const quiet = settled(alone, machines, late ? 'hosts' : 'link');
  const asked = startRecovery(quiet, gone.length);
  return settled(settled(asked, machines, 'command'), machines, 'link');
}

/** Lets the services finish what they do, and what is under way arrive, until nothing is. */
function settled(world: World, machines: Machines, what: 'hosts' | 'link' | 'command'): World {
  let now = world;
  for (let steps = 0; steps < 100; steps++) {
    const next = oneStep(now, machines, what);
    if (next === null) return now;
    now = next;
  }
  throw new Error('it does not come to rest');
}

function oneStep(world: World, machines: Machines, what: 'hosts' | 'link' | 'command'): World | null {
  const [acted] = [...actOnSource(world, machines), ...actOnDestination(world, machines)];
  if (acted !== undefined) return acted;
  const [message] = world.link;
  if (what === 'link' && message !== undefined) return deliverOverLink(world, machines, message);
  const last = world.commands.length - 1;
  const [request] = world.commands[last]!.sent;
  return what === 'command' && request !== undefined ? deliver(world, machines, last, request) : null;
}
