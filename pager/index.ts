/** A guest's memory where it is a file: reading it, and sending it from there. */
export type { CacheRun, FileBlock } from './captureBlock.js';
export { PagerError, type PagerErrorCode } from './errors.js';
export { FileCapture, type FileCaptureOptions, type KeptRun, type PageCounts, type Taken } from './fileCapture.js';
export type { SentSet } from './flights.js';
export { HeldPages } from './heldPages.js';
export { type FileRun, MemoryFile } from './memoryFile.js';
export { type Digester, heldDisk, type PageBatch } from './pageTeller.js';
export { headForPostcopy, type PostcopyHead } from './postcopyHead.js';
export type { WrittenPage } from './writeWatch.js';
