/** Deciding, as what came of it is told to the machines. */
import { decide } from './decision.js';
import type { DestinationEvent } from './destination.js';
import type { SourceEvent } from './source.js';

/** @param failed - gets why nothing was decided, as far as this caller may act on it */
export async function decideAtSource(
  { runDir, migrationId }: { readonly runDir: string; readonly migrationId: string },
  decision: 'held' | 'kept',
  failed: (error: unknown) => void = () => {},
): Promise<SourceEvent> {
  try {
    const stands = await decide(runDir, migrationId, 'source', decision);
    if (stands === decision) return decision === 'held' ? 'wroteHeld' : 'wroteKept';
    return stands === 'held' ? 'heldStands' : 'keptStands';
  } catch (error) {
    failed(error);
    return 'writeFailed';
  }
}

/** Likewise. */
export async function decideAtDestination(
  { runDir, migrationId }: { readonly runDir: string; readonly migrationId: string },
  decision: 'run' | 'end',
  failed: (error: unknown) => void = () => {},
): Promise<DestinationEvent> {
  try {
    const stands = await decide(runDir, migrationId, 'destination', decision);
    if (stands === decision) return decision === 'run' ? 'wroteRun' : 'wroteEnd';
    return stands === 'run' ? 'runStands' : 'endStands';
  } catch (error) {
    failed(error);
    return 'writeFailed';
  }
}
