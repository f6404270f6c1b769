/**
 * Ctrl-C. Before the commit point it cancels; after it, it says what it will not do, and why.
 * A second one says what forcing would cost, and a third one pays. While the memory of a switch is being pulled leaving
 * costs nothing but sight of it, so there the second one leaves.
 *
 * SIGTERM and SIGHUP ask once, as the first Ctrl-C does, and never force: whoever sends them
 * repeatedly does not read what the second one says.
 */
import type { ProgressEvent } from '../migrate/progress.js';
import { exitCodes, type PhaseName } from '../migrate/report.js';
import { clean } from './render/format.js';

/**
 * How far the guest has come, as far as an interruption is concerned. Somewhere in `committing` the destination is asked
 * to let the guest run, and only the migration itself knows whether it has been. `resolving` is what `vmmig recover` does.
 */
type Stage = 'resolving' | 'copying' | 'switching' | 'committing' | 'committed' | 'pulling';

const stageAtBegin: Partial<Record<PhaseName, Stage>> = {
  'switch-over': 'switching',
  verify: 'committing',
  // Phases end when they fail too, so it is the next one's begin that shows the commit.
  'release source': 'committed',
  pull: 'pulling',
};

export interface InterruptHooks {
  say(line: string): void;
  /** Leaves at once, cleaning up nothing. */
  forceExit(code: number): void;
}

export class Interrupts {
  readonly #controller = new AbortController();
  readonly #leave = new AbortController();
  #stage: Stage;
  #presses = 0;
  #vm = 'the guest';
  #from = 'the source';
  #to = 'the destination';

  constructor(
    private readonly hooks: InterruptHooks,
    stage: 'copying' | 'resolving' = 'copying',
  ) {
    this.#stage = stage;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The operator does not want to watch the pull to its end. */
  get leave(): AbortSignal {
    return this.#leave.signal;
  }

  observe(event: ProgressEvent): void {
    if (event.type === 'start') {
      this.#vm = clean(event.vm);
      this.#from = clean(event.from);
      this.#to = clean(event.to);
    }
    if (event.type !== 'phase' || event.state !== 'begin') return;
    const stage = stageAtBegin[event.name] ?? this.#stage;
    if (this.#stage === 'resolving' && stage !== 'pulling') return;
    // What was pressed for cancelling is not a wish to leave.
    if (stage === 'pulling' && this.#stage !== 'pulling') this.#presses = Math.min(this.#presses, 1);
    this.#stage = stage;
  }

  /** SIGTERM, SIGHUP. */
  terminate(): void {
    if (this.#presses === 0) this.interrupt();
  }

  /** SIGINT. */
  interrupt(): void {
    this.#presses++;
    if (this.#presses === 1) this.#first();
    else if (this.#stage === 'resolving') this.hooks.forceExit(exitCodes.unknown);
    else if (this.#stage === 'pulling' && this.#presses === 2) this.#leave.abort();
    else if (this.#presses === 2) this.hooks.say(this.#costOfForcing());
    else this.hooks.forceExit(forcedExitCodes[this.#stage] ?? exitCodes.unknown);
  }

  #first(): void {
    if (this.#stage === 'resolving') {
      this.hooks.say(
        `Not stopping yet: where ${this.#vm} is will be known in a moment. Stopping does it no harm, and "vmmig recover" ` +
          'can be run again; press Ctrl-C once more to stop.',
      );
      return;
    }
    if (this.#stage === 'pulling') {
      this.hooks.say(
        `Not cancelling: ${this.#vm} runs on ${this.#to}, and part of its memory is still on ${this.#from}. ` +
          'Stopping this command would not stop the pull, which goes on by itself. Press Ctrl-C once more to leave it to that.',
      );
      return;
    }
    if (this.#stage === 'committed') {
      this.hooks.say(
        `Not cancelling: ${this.#vm} has been handed over to ${this.#to}, and taking it back could leave it running twice. ` +
          `What is left is to release ${this.#from}; that goes on.`,
      );
      return;
    }
    this.hooks.say(
      this.#stage === 'committing'
        ? `Cancelling, unless it is too late: ${this.#vm} is being handed over to ${this.#to} right now. The report will say where it is.`
        : `Cancelling: ${this.#vm} stays on ${this.#from}. Waiting for both hosts to be as they were.`,
    );
    this.#controller.abort(new DOMException('interrupted by the user', 'AbortError'));
  }

  #costOfForcing(): string {
    const again = 'Press Ctrl-C once more to leave anyway.';
    switch (this.#stage) {
      case 'copying':
        return `Still cleaning up. Leaving now does not stop ${this.#vm} on ${this.#from}, but may leave a waiting QEMU on ${this.#to}. ${again}`;
      case 'resolving':
      case 'switching':
      case 'committing':
        return `${this.#vm} is paused between the hosts. Leaving now may leave it paused on ${this.#from}, and nobody to say where it is. ${again}`;
      case 'committed':
      case 'pulling':
        return `${this.#vm} runs on ${this.#to}. Leaving now leaves its paused copy and its memory behind on ${this.#from}. ${again}`;
    }
  }
}

const forcedExitCodes: Partial<Record<Stage, number>> = {
  copying: exitCodes.cancelled,
  pulling: exitCodes.interrupted,
};

/** Listens to the process's signals until disposed. */
export function listenForInterrupts(interrupts: Interrupts): Disposable {
  const interrupt = (): void => interrupts.interrupt();
  const terminate = (): void => interrupts.terminate();
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', terminate);
  process.on('SIGHUP', terminate);
  return {
    [Symbol.dispose]() {
      process.off('SIGINT', interrupt);
      process.off('SIGTERM', terminate);
      process.off('SIGHUP', terminate);
    },
  };
}
