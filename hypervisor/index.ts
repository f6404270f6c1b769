/** Finding, inspecting, starting and stopping guests. */
export { HypervisorError, type HypervisorErrorCode } from './errors.js';
export { findGpaRange, type GpaRange } from './gpaMap.js';
export { type InspectOptions, inspectGuest } from './inspect.js';
export type { BlockDevice, GuestInspection, MemoryBackend, ProcessId, ProcessInspection } from './inspection.js';
export { isRunning } from './process.js';
export type { RamBlockInfo } from './ramBlocks.js';
