/** What must hold in every world. */

import { isEnd } from '../../../host-service/commit/resolution.js';
import { outcome } from '../../../migrate/outcome.js';
import { recovered } from './recovery.js';
import type { Command, Machines, World } from './world.js';

/** What is wrong with a world; null when nothing is. */
export function violationIn(world: World): string | null {
  const { source, destination, goSent, ran, wrong } = world;
  if (wrong !== null) return wrong;
  if (source.guest === 'running' && destination.guest === 'running') return 'the guest runs twice';
  if (source.guest === 'running' && ran) return 'the guest runs on the source after it has run on the destination';
  if (goSent && source.decision !== 'held') return 'go was sent before that was on disk';
  if (destination.guest === 'running' && destination.decision !== 'run') return 'it runs before that was on disk';
  if (destination.guest === 'running' && !goSent) return 'it runs without go';
  if (goSent && source.guest === 'running' && destination.guest !== 'gone')
    return 'the source resumed after go while the destination could still run the guest';
  for (const command of world.commands) {
    const lie = lieOf(command, world);
    if (lie !== null) return lie;
  }
  return null;
}

/** What a command reports stays true, until the guest's own QEMU ends. */
function lieOf({ state, triggered }: Command, { source, destination, goSent, ran }: World): string | null {
  if (state === 'absent' || state === 'dead' || !isEnd(state)) return null;
  const { vmLocation } = outcome({ end: state, cancelled: false, mayBeHeld: triggered, complete: true });
  if (vmLocation === 'destination') {
    if (!ran || source.guest === 'running') return `reported ${state}, and it is not so`;
    if (destination.guest !== 'running' && !destination.died) return `reported ${state}, and it runs nowhere`;
    if (state === 'moved' && source.guest !== 'gone') return 'reported moved, and the source still has it';
  }
  if (vmLocation === 'source') {
    if (ran || destination.guest === 'running') return `reported ${state}, and it is not so`;
    if (state === 'stayed' && source.guest !== 'running') return 'reported stayed, and it runs nowhere';
    if (state === 'unconfirmed' && goSent) return 'reported on the source, and it may leave it';
  }
  return null;
}

/** What is wrong with a world after a `recover` that reaches both hosts: exactly one runs, and it says which. */
export function violationAfterRecovery(world: World, machines: Machines): string | null {
  for (const late of [false, true]) {
    const after = recovered(world, machines, late);
    const what = violationIn(after) ?? unresolved(after);
    if (what !== null) return `after recover${late ? ', with late messages' : ''}: ${what}`;
  }
  return null;
}

function unresolved({ source, destination, commands }: World): string | null {
  const { state } = commands.at(-1)!;
  const places = [source.guest, destination.guest].filter((guest) => guest === 'running').length;
  if (state === 'moved' || state === 'stayed')
    return places === 1 || destination.died ? null : `${state}, and it runs nowhere`;
  if (state !== 'unknown') return `recover ended as ${state}`;
  // Nobody can know: QEMU has gone after it was decided that the guest runs in it, or the host has forgotten.
  const mayHaveRun = destination.decision === 'run' && destination.guest === 'gone';
  return mayHaveRun || !destination.remembers ? null : 'recover gave up although it could have known';
}
