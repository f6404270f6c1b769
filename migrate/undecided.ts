/**
 * What `vmmig recover` says when it cannot tell where a guest is: what each host has answered, why that does not decide it,
 * what keeps the guest safe meanwhile, and what to do. Pure: the hosts have been asked by then.
 */
import type { DestinationState, SourceState } from '../host-service/commit/index.js';
import { toVmmigError, VmmigError } from './errors.js';

/** The last that a host has said, or why it has said nothing; null when it was not asked. */
export type Answer<State> =
  | { readonly state: State /** Its QEMU is gone. */; readonly hasEnded: boolean }
  | { readonly failure: unknown }
  | null;

export interface Undecided {
  readonly vm: string;
  readonly from: string;
  readonly to: string;
  readonly source: Answer<SourceState>;
  readonly destination: Answer<DestinationState>;
  /** The destination still has what it noted before it was last restarted, if it was. */
  readonly remembers: boolean;
  /** What went wrong besides. */
  readonly failures?: readonly unknown[];
}

/** What is known, and what follows from it, as sentences without their end. */
interface Verdict {
  readonly why: string;
  readonly safety: string;
  readonly next: string;
  /** Asking again may help. */
  readonly retryable: boolean;
}

/** VMMIG_UNRESOLVED when a host could not be asked, VMMIG_INCONCLUSIVE when both were. */
export function undecided(known: Undecided): VmmigError {
  const { source, destination, failures = [] } = known;
  const isMissing = [source, destination].some((answer) => answer !== null && 'failure' in answer);
  const { why, safety, next, retryable } = isMissing ? notAsked(known) : judged(known);
  const said = [whatSourceSaid(known), whatDestinationSaid(known)].filter((clause) => clause !== null).join('; ');
  const reasons = failures.map((failure) => toVmmigError(failure).message).filter((reason) => !said.includes(reason));
  const besides = reasons.length === 0 ? '' : ` (${[...new Set(reasons)].join('; ')})`;
  return new VmmigError(
    isMissing ? 'VMMIG_UNRESOLVED' : 'VMMIG_INCONCLUSIVE',
    `${said}${besides}. ${why}. ${safety}. ${next}`,
    { vmLocation: 'unknown', retryable },
  );
}

/** What QEMU on a host says of the guest; null: there is none that answers. */
export type Probed = { readonly host: string } & ({ readonly state: string | null } | { readonly failure: unknown });

/** Neither host has noted anything of the migration any more, and their QEMUs do not tell where the guest is, either. */
export function nothingNoted(vm: string, here: Probed, there: Probed): VmmigError {
  const isMissing = 'failure' in here || 'failure' in there;
  const said = [here, there].map((probed) => {
    if ('failure' in probed) return `${probed.host} could not be asked: ${toVmmigError(probed.failure).message}`;
    return probed.state === null
      ? `${probed.host} answers that no QEMU of ${vm} does`
      : `${probed.host} answers that its QEMU of ${vm} is "${probed.state}"`;
  });
  const text =
    `${said.join('; ')}. Neither has anything noted of the migration any more, so it is over, and nothing of vmmig's is ` +
    `going to let ${vm} run or to end it. ${
      isMissing
        ? `Run "vmmig recover ${vm}" again when both can be reached`
        : 'Look at the guest on both: where it is paused it waits for you, where it is on neither start it again from its disk'
    }`;
  const code = isMissing ? 'VMMIG_UNRESOLVED' : 'VMMIG_INCONCLUSIVE';
  return new VmmigError(code, text, { vmLocation: 'unknown', retryable: isMissing });
}

function whatSourceSaid({ vm, from, source }: Undecided): string | null {
  if (source === null) return null;
  if ('failure' in source) return `${from} could not be asked: ${toVmmigError(source.failure).message}`;
  switch (source.state) {
    case 'held':
    case 'inDoubt':
      return `${from} answers that ${vm} was to go, and is paused there`;
    case 'released':
      return `${from} answers that its QEMU of ${vm} has ended`;
    case 'resumed':
      return `${from} answers that ${vm} runs there`;
    case 'kept':
      return source.hasEnded
        ? `${from} answers that ${vm} was to stay, and its QEMU has ended`
        : `${from} answers that ${vm} is to stay, and that its QEMU could not be made to let it run`;
    case 'orphaned':
      return `${from} answers that it could not put on disk that ${vm} is to stay`;
    default:
      return `${from} answers that it is not done yet (${source.state})`;
  }
}

function whatDestinationSaid({ vm, to, destination, remembers }: Undecided): string | null {
  if (destination === null) return null;
  if ('failure' in destination) return `${to} could not be asked: ${toVmmigError(destination.failure).message}`;
  switch (destination.state) {
    case 'running':
      return `${to} answers that ${vm} runs there`;
    case 'ended':
      return `${to} answers that ${vm} does not run there, and never will`;
    case 'doubtful':
      if (!remembers)
        return `${to} answers that it keeps nothing from then any more: it has restarted, for all that is known`;
      return destination.hasEnded
        ? `${to} answers that ${vm} was to run there, and its QEMU has ended since`
        : `${to} answers that ${vm} was to run there, and that its QEMU does not say whether it does`;
    case 'unended':
      return `${to} answers that ${vm} is not to run there, and that its QEMU could not be ended`;
    case 'orphaned':
      return `${to} answers that it could not put on disk that ${vm} does not run there`;
    default:
      return `${to} answers that it is not done yet (${destination.state})`;
  }
}

function notAsked({ vm, from, to, source, destination }: Undecided): Verdict {
  const missing = [[from, source] as const, [to, destination] as const].flatMap(([host, answer]) =>
    answer !== null && 'failure' in answer ? [host] : [],
  );
  const isGivenUp = destination !== null && 'state' in destination && destination.state === 'ended';
  return {
    why: isGivenUp
      ? `So ${vm} belongs on ${from}, and whether it runs there is not known`
      : `Only ${missing.join(' and ')} can say whether ${vm} runs on ${to}`,
    safety: isGivenUp
      ? 'It cannot run twice'
      : `Once ${from} has let it go it stays paused there, and does not go on by itself: it cannot run twice`,
    next: `Run "vmmig recover ${vm}" again when ${missing.join(' and ')} can be reached`,
    retryable: true,
  };
}

function judged(known: Undecided): Verdict {
  const { vm, from, to, remembers } = known;
  const source = stateOf(known.source);
  const destination = stateOf(known.destination);
  const again = `run "vmmig recover ${vm}" again`;
  if (source === 'resumed' && destination === 'running')
    return {
      why: 'It must not run on both, and which of them has its disks right no program can tell',
      safety: 'Nothing keeps it safe but you',
      next: `End one of them at once, and look after its disks before you trust the other one; then ${again}`,
      retryable: false,
    };
  if (destination === 'ended' || source === 'kept' || source === 'orphaned')
    return {
      why: `So ${vm} belongs on ${from}, which does not say that it runs there`,
      safety: `It is nobody else's, and cannot run twice`,
      next: `See that its QEMU answers there and that there is room in runDir, and ${again}`,
      retryable: true,
    };
  const isKept = source === 'held' || source === 'inDoubt';
  const safety = isKept
    ? `It is kept paused on ${from}, and goes on nowhere by itself`
    : `Neither host lets it run by itself`;
  if (destination === 'unended')
    return {
      why: `As long as there is that QEMU, ${vm} is not let run on ${from}`,
      safety,
      next: `End it on ${to}, and ${again}: then it goes on, on ${from}`,
      retryable: true,
    };
  if (destination !== 'doubtful')
    return {
      why: `That does not say yet whether ${vm} runs on ${to}`,
      safety,
      next: `See that there is room in runDir of ${to}, and ${again}`,
      retryable: true,
    };
  if (!remembers || hasEnded(known.destination)) return mayHaveRun(known, safety);
  return {
    why: 'It may be running, or have run and written to its disks',
    safety,
    next: `When that QEMU answers, or when you have ended it, ${again}`,
    retryable: true,
  };
}

/** Nobody will ever know more. */
function mayHaveRun({ vm, from, to }: Undecided, safety: string): Verdict {
  return {
    why: `It may have run on ${to} and written to its disks, which are newer then than its memory on ${from}: nobody can know any more`,
    safety,
    next:
      `Do not let it go on there, unless you can rule out that it ran on ${to}. End its QEMU on ${from}, start it again ` +
      `from its disk, as after a power cut, and run "vmmig recover ${vm}" once more to have removed what is left of the migration`,
    retryable: false,
  };
}

function stateOf<State>(answer: Answer<State>): State | null {
  return answer !== null && 'state' in answer ? answer.state : null;
}

function hasEnded(answer: Answer<unknown>): boolean {
  return answer !== null && 'state' in answer && answer.hasEnded;
}
