/**
 * How a switch ends at its source: when the destination has all of the guest's memory, both sides compare; and when it is
 * found equal, or somebody else knows that the guest needs nothing any more, this host's memory is given back.
 */
import { RelayError } from '../../errors.js';
import { frameType } from '../../link/frames.js';
import { Milestone } from '../../milestone.js';
import type { GuestMemory } from '../filePages.js';
import type { BatchSender } from './batchSender.js';
import type { SwitchLink } from './switchLink.js';

export class Conclusion {
  readonly #end = new Milestone<void>();
  /** Rejects with a `RelayError`. */
  readonly reached: Promise<void> = this.#end.reached;
  readonly #link: Pick<SwitchLink, 'sendOrdered'>;
  readonly #memory: GuestMemory | null;
  #isRootSent = false;

  /** @param memory - null: none is kept in files */
  constructor(link: Pick<SwitchLink, 'sendOrdered'>, memory: GuestMemory | null) {
    this.#link = link;
    this.#memory = memory;
  }

  /** It has ended, well or not. */
  get isDecided(): boolean {
    return this.#end.isDecided;
  }

  /** The destination has all that was sent: has it compare that, once. */
  compare(batches: Pick<BatchSender, 'root'>): void {
    if (this.#isRootSent) return;
    this.#isRootSent = true;
    this.#link.sendOrdered(frameType.root, batches.root());
  }

  /** Another destination relay is told everything again: what was to be compared is not any more. */
  restart(): void {
    this.#isRootSent = false;
  }

  /** @throws RelayError when there was nothing to compare with; the caller fails when it is not equal */
  compared(isEqual: boolean): void {
    if (!this.#isRootSent) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination compared before the end');
    if (isEqual) this.succeed();
  }

  /** The guest lives elsewhere, whole. @returns false when it was decided before, and nothing is given back */
  succeed(): boolean {
    if (this.#end.isDecided) return false;
    return this.#end.reach(this.#giveBack());
  }

  /** @returns false when it was decided before */
  fail(error: RelayError): boolean {
    return this.#end.miss(error);
  }

  /** This host need not keep the guest's memory, however long the files are kept. */
  async #giveBack(): Promise<void> {
    for (const { place, lengthBytes } of this.#memory?.blocks ?? []) {
      // Where the file system cannot do it, the memory is free when the file is removed.
      await place?.file.release(place.fileOffset, lengthBytes).catch(() => {});
    }
  }
}
