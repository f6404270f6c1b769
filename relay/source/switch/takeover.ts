/**
 * Another destination relay takes the place of the one before, and knows nothing. It is told of the guest's memory and
 * says which pages QEMU has; until it has, nothing is sent and faults wait. Then it is told the rest, as if for the first
 * time.
 */
import { pagesOfBlocks } from '../../digest.js';
import { RelayError } from '../../errors.js';
import type { Frame } from '../../link/frames.js';
import { PlacedPages } from '../../link/placed.js';
import type { BatchSender } from './batchSender.js';
import type { FaultAnswers } from './faultAnswers.js';
import type { Pump } from './pump.js';

export class Takeover {
  readonly #pump: Pump;
  readonly #faults: FaultAnswers;
  readonly #failed: (error: RelayError) => void;
  #placed: PlacedPages | null = null;

  /** @param failed - QEMU has what was never sent */
  constructor(pump: Pump, faults: FaultAnswers, failed: (error: RelayError) => void) {
    this.#pump = pump;
    this.#faults = faults;
    this.#failed = failed;
  }

  /** The relay has not said yet what QEMU has. */
  get isUnderWay(): boolean {
    return this.#placed !== null;
  }

  /** To be called again when yet another relay comes before the last one has said what QEMU has. */
  begin(batches: BatchSender): void {
    batches.restart();
    this.#placed = new PlacedPages(pagesOfBlocks(batches.blocks));
    this.#pump.hold();
    this.#faults.hold();
  }

  /**
   * The relay has told some of what QEMU has. What waited is sent when that was all.
   *
   * @throws RelayError when it was not asked
   */
  told({ sequence, payload }: Frame, batches: BatchSender): void {
    const placed = this.#placed;
    if (placed === null)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination told what it has without being asked');
    if (!placed.add(sequence, payload)) return;
    try {
      batches.store.resync((block, page) => placed.has(block, page));
    } catch (cause) {
      return this.#failed(new RelayError('VMMIG_RELAY_VERIFY', (cause as Error).message, cause));
    }
    this.#placed = null;
    this.#pump.release();
    this.#faults.release(batches);
    this.#pump.run();
  }
}
