/**
 * Finds out where the guest of a switch is, and finishes the migration either way: what is done when one fails, and
 * what `vmmig recover` does. The answers are the hosts'; nothing is guessed.
 */
import {
  type DestinationState,
  isEnd,
  type ResolutionAction,
  type ResolutionEnd,
  type ResolutionEvent,
  type ResolutionState,
  recovery,
  resolutionStep,
  type SourceState,
} from '../host-service/commit/index.js';

/** The two hosts, as far as they can be asked. A call rejects when its host cannot be reached, or does not answer. */
export interface Parties {
  postToSource(event: 'abandon' | 'release' | 'resume'): Promise<SourceState>;
  askDestination(): Promise<DestinationState>;
}

export async function resolve(parties: Parties): Promise<ResolutionEnd> {
  let state: ResolutionState = recovery.state;
  let actions: readonly ResolutionAction[] = recovery.actions;
  while (!isEnd(state)) {
    const event: ResolutionEvent = await perform(actions[0]!, parties);
    ({ state, actions } = resolutionStep(state, event));
  }
  return state;
}

async function perform(action: ResolutionAction, parties: Parties): Promise<ResolutionEvent> {
  try {
    switch (action) {
      case 'sendAbandon':
        return saidBySource(await parties.postToSource('abandon'));
      case 'sendRelease':
        return saidBySource(await parties.postToSource('release'));
      case 'sendResume':
        return saidBySource(await parties.postToSource('resume'));
      default:
        return saidByDestination(await parties.askDestination());
    }
  } catch {
    return 'silent';
  }
}

function saidBySource(state: SourceState): ResolutionEvent {
  if (state === 'resumed') return 'sourceResumed';
  if (state === 'released') return 'sourceReleased';
  return state === 'held' || state === 'inDoubt' ? 'sourceHeld' : 'sourceFailed';
}

function saidByDestination(state: DestinationState): ResolutionEvent {
  if (state === 'running') return 'destinationRunning';
  return state === 'ended' ? 'destinationRefused' : 'destinationUnknown';
}
