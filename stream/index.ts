/** QEMU's migration stream: decoder, encoder, return path and summary. I/O-free; knows nothing of the rest of vmmig. */
export * from './commands.js';
export { encodeConfiguration } from './configuration.js';
export * from './constants.js';
export { StreamDecoder, type StreamDecoderOptions, type StreamState } from './decoder.js';
export { type DeviceSection, describeDevices, type SplitTail, splitTail } from './deviceState.js';
export { StreamEncoder, type StreamEncoderOptions } from './encoder.js';
export { StreamError, type StreamErrorCode } from './errors.js';
export { formatSummary } from './formatSummary.js';
export type * from './handler.js';
export { DEFAULT_STREAM_LIMITS, type StreamLimits } from './limits.js';
export { passThrough } from './passThrough.js';
export { encodeReturnPath, ReturnPathDecoder, type ReturnPathLimits, type ReturnPathMessage } from './returnPath.js';
export * from './summary.js';
