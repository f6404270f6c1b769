/** Acknowledgements, several in a frame where several are due: one a batch would be much overhead for references. */
import { encodeSequences } from '../link/sequences.js';

export class Acknowledgements {
  #sequences: number[] = [];

  /** @param send - gets the payload */
  constructor(private readonly send: (payload: Buffer) => void) {}

  add(sequence: number): void {
    this.#sequences.push(sequence);
    if (this.#sequences.length > 1) return;
    setImmediate(() => {
      const payload = encodeSequences(this.#sequences);
      this.#sequences = [];
      this.send(payload);
    });
  }
}
