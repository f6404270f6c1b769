/** What can be wrong with a migration stream or a return path. */

/**
 * - `VMMIG_STREAM_CORRUPT`: no QEMU writes this; the stream is damaged or hostile.
 * - `VMMIG_STREAM_UNSUPPORTED`: a QEMU may write this, but it is not handled here; nothing is guessed.
 * - `VMMIG_STREAM_TRUNCATED`: the stream ended before it was complete.
 */
export type StreamErrorCode = 'VMMIG_STREAM_CORRUPT' | 'VMMIG_STREAM_UNSUPPORTED' | 'VMMIG_STREAM_TRUNCATED';

/** The only error that decoding throws by itself. */
export class StreamError extends Error {
  override readonly name = 'StreamError';

  /** @param offset bytes from the start of the stream to the record that is wrong */
  constructor(
    readonly code: StreamErrorCode,
    message: string,
    readonly offset: number,
  ) {
    super(`${message} (at stream offset ${offset})`);
  }
}
