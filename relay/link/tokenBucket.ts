/**
 * A cap on the bytes sent each second. What is sent is paid for afterwards: the next waits until the time that the last
 * one takes at this bandwidth is over. A short burst is allowed after a pause, and what a late timer held up is caught
 * up with.
 */

/** Saved up while there is nothing to send. */
const burstMs = 5;
/** A timer of a busy machine that is this late costs no bandwidth. */
const latenessMs = 100;
/** What is sent at once lasts so long at most, so that the cap holds over short times, too. */
const sliceMs = 4;
const minSliceBytes = 2048;
/** RFC 8446, 5.2: header, content type and tag of a TLS record, and what a record holds at most. */
const recordOverheadBytes = 22;
const maxRecordBytes = 16_384;

/** IPv4 and TCP with time stamps, in packets of 1500 bytes: what else a link carries besides, as Ethernet's headers, is 1 %. */
const packetHeaderBytes = 52;
const maxSegmentBytes = 1448;

/** The bytes on the wire of what is written at once. */
export function wireBytes(lengthBytes: number): number {
  const recordBytes = lengthBytes + recordOverheadBytes * Math.ceil(lengthBytes / maxRecordBytes);
  return recordBytes + packetHeaderBytes * Math.ceil(recordBytes / maxSegmentBytes);
}

export class TokenBucket {
  /** What is best sent at once. */
  readonly sliceBytes: number;
  readonly #bytesPerMs: number;
  /** When everything that was taken has been paid for. */
  #paidAtMs = performance.now();
  #isAwaited = false;

  constructor(bitsPerSecond: number) {
    this.#bytesPerMs = bitsPerSecond / 8000;
    this.sliceBytes = Math.max(minSliceBytes, Math.floor(this.#bytesPerMs * sliceMs));
  }

  /** Takes without waiting; what is overdrawn is waited for by the next. */
  take(lengthBytes: number): void {
    const savedMs = this.#isAwaited ? latenessMs : burstMs;
    this.#paidAtMs = Math.max(this.#paidAtMs, performance.now() - savedMs) + wireBytes(lengthBytes) / this.#bytesPerMs;
  }

  /** @returns 0 when it was taken, else how long to wait before asking again */
  tryTake(lengthBytes: number): number {
    const waitMs = this.#paidAtMs - performance.now();
    if (waitMs > 0) {
      this.#isAwaited = true;
      return Math.ceil(waitMs);
    }
    this.take(lengthBytes);
    this.#isAwaited = false;
    return 0;
  }
}
