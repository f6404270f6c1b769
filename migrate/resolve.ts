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
import type { Results } from '../host-service/protocol.js';

/** `ended`: it has not run on the destination and never will, and its QEMU on the source is gone. */
export type End = ResolutionEnd | 'ended';

/** The two hosts, as far as they can be asked. A call rejects when its host cannot be reached, or does not answer. */
export interface Parties {
  postToSource(event: 'abandon' | 'release' | 'resume'): Promise<Results['source.post']>;
  askDestination(): Promise<DestinationState>;
}

export async function resolve(parties: Parties): Promise<End> {
  let state: ResolutionState = recovery.state;
  let actions: readonly ResolutionAction[] = recovery.actions;
  let hasEnded = false;
  const noting: Parties = {
    ...parties,
    async postToSource(event) {
      const answer = await parties.postToSource(event);
      // A source that was told to let the guest run on, and finds no QEMU any more, has nothing to resume.
      hasEnded ||= answer.guestHasEnded || (event === 'resume' && answer.state === 'released');
      return answer;
    },
  };
  while (!isEnd(state)) {
    const event: ResolutionEvent = await perform(actions[0]!, noting);
    ({ state, actions } = resolutionStep(state, event));
  }
  return hasEnded && (state === 'unconfirmed' || state === 'unknown') ? 'ended' : state;
}

async function perform(action: ResolutionAction, parties: Parties): Promise<ResolutionEvent> {
  try {
    switch (action) {
      case 'sendAbandon':
        return saidBySource((await parties.postToSource('abandon')).state);
      case 'sendRelease':
        return saidBySource((await parties.postToSource('release')).state);
      case 'sendResume':
        return saidBySource((await parties.postToSource('resume')).state);
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
