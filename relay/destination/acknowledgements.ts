/** Acknowledgements, several in a frame where several are due: one a batch would be much overhead for references. */
export class Acknowledgements {
  #sequences: number[] = [];

  /** @param send - gets be32 sequences, one after the other */
  constructor(private readonly send: (payload: Buffer) => void) {}

  add(sequence: number): void {
    this.#sequences.push(sequence);
    if (this.#sequences.length > 1) return;
    setImmediate(() => {
      const payload = Buffer.allocUnsafe(this.#sequences.length * 4);
      this.#sequences.forEach((value, at) => {
        payload.writeUInt32BE(value, at * 4);
      });
      this.#sequences = [];
      this.send(payload);
    });
  }
}
