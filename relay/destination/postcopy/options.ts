/** What a post-copy stream is given, and what it tells. */
import type { RamBlock } from '../../../stream/handler.js';
import type { RelayError } from '../../errors.js';
import type { PageRun } from './blockPages.js';
import type { RamSection } from './commands.js';

export interface PostcopyHandlers {
  /**
   * QEMU waits for this host page, and it is neither placed nor zero: `place` or `zero` is to follow. Asked once, but for
   * a huge page whose incomplete pages had to be forgotten.
   */
  fault(run: PageRun): void;
  /** The stream has ended before its end: QEMU hung up, or said what no QEMU says. Called once; nothing more follows. */
  lost(error: RelayError): void;
  /** QEMU has all it was given and is done, well or not. */
  shut?(ok: boolean): void;
  /** QEMU has taken some of what was written. */
  progress?(): void;
}

export interface PostcopyOptions {
  readonly signal?: AbortSignal;
  /** Bound on the memory for pages of huge host pages that are not complete. Default 64 MiB. */
  readonly collectorBytes?: number;
  /** Somebody else has set QEMU's capabilities, `postcopy-preempt` perhaps among them. */
  readonly mayPreempt?: boolean;
}

export interface PostcopyBegin {
  /** Header and configuration, as the source QEMU sent them. */
  readonly head: Buffer;
  readonly ramSection: RamSection;
  /** In the order of their indices, with the page size of the destination's memory where it is not 4096. */
  readonly blocks: readonly RamBlock[];
}
