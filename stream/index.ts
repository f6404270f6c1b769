/** QEMU's migration stream: decoder, encoder, return path and summary. I/O-free; knows nothing of the rest of vmmig. */
export { encodeConfiguration } from './configuration.js';
export * from './constants.js';
export { StreamDecoder, type StreamDecoderOptions, type StreamState } from './decoder.js';
export { StreamEncoder, type StreamEncoderOptions } from './encoder.js';
export { StreamError, type StreamErrorCode } from './errors.js';
export type * from './handler.js';
export { DEFAULT_STREAM_LIMITS, type StreamLimits } from './limits.js';
export { passThrough } from './passThrough.js';
