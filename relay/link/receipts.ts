/**
 * How each side of a durable link tells the other what it has received.
 *
 *   received = be48 bytes of bulk data since the connections were made,
 *              be48 frames received whole, for each connection in its order, since the link began
 *
 * The bytes are those of numbered frames, on all connections but the first; a frame that has come in part counts so far.
 */
import { RelayError } from '../errors.js';
import type { Lane } from './lane.js';

/** So much makes the other side's window move smoothly, and costs 1 % of the bandwidth on the way back at most. */
const tellBytes = 16 * 1024;
const tellFrames = 32;
const defaultDelayMs = 1;

export interface Receipt {
  readonly bulkBytes: number;
  readonly frames: readonly number[];
}

export function encodeReceipt(lanes: readonly Lane[]): Buffer {
  const payload = Buffer.alloc(6 + 6 * lanes.length);
  const bulkBytes = lanes.slice(1).reduce((sum, { arrivedBytes }) => sum + arrivedBytes, 0);
  payload.writeUIntBE(bulkBytes, 0, 6);
  for (const [at, { received }] of lanes.entries()) payload.writeUIntBE(received, 6 + 6 * at, 6);
  return payload;
}

export function decodeReceipt(payload: Buffer, lanes: number): Receipt {
  if (payload.length !== 6 + 6 * lanes)
    throw new RelayError('VMMIG_LINK_PROTOCOL', 'the other relay sent a malformed receipt');
  const frames = Array.from({ length: lanes }, (_, lane) => payload.readUIntBE(6 + 6 * lane, 6));
  return { bulkBytes: payload.readUIntBE(0, 6), frames };
}

/** When to tell: soon after much was received, and not for each frame. What is left, the owner tells now and then. */
export class ReceiptSchedule {
  readonly #tell: () => void;
  #bytes = 0;
  #frames = 0;
  #timer: NodeJS.Timeout | null = null;

  /** @param delayMs - from what makes a receipt due to the receipt */
  constructor(
    tell: () => void,
    private readonly delayMs = defaultDelayMs,
  ) {
    this.#tell = tell;
  }

  received(lengthBytes: number, frames: number): void {
    this.#bytes += lengthBytes;
    this.#frames += frames;
    if (this.#timer !== null || (this.#bytes < tellBytes && this.#frames < tellFrames)) return;
    this.#timer = setTimeout(() => this.flush(), this.delayMs);
  }

  /** Tells what has not been told. */
  flush(): void {
    this.stop();
    if (this.#bytes === 0 && this.#frames === 0) return;
    this.#bytes = this.#frames = 0;
    this.#tell();
  }

  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
