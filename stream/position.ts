import { StreamError, type StreamErrorCode } from './errors.js';

/**
 * Where in the stream the decoder is. Kept as the chunk's offset plus a small integer, so that moving on by a record
 * costs the hot loop one store and no floating-point box.
 */
export class StreamPosition {
  /** Stream offset of the chunk being decoded. */
  chunkOffset = 0;
  /** Start of the record being decoded, relative to the chunk; negative when it began in an earlier one. */
  recordStart = 0;

  get offset(): number {
    return this.chunkOffset + this.recordStart;
  }

  nextChunk(lengthBytes: number): void {
    this.chunkOffset += lengthBytes;
    this.recordStart -= lengthBytes;
  }

  error(code: StreamErrorCode, message: string): StreamError {
    return new StreamError(code, message, this.offset);
  }

  corrupt(message: string): StreamError {
    return this.error('VMMIG_STREAM_CORRUPT', message);
  }

  unsupported(message: string): StreamError {
    return this.error('VMMIG_STREAM_UNSUPPORTED', message);
  }
}
