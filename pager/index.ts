/** A guest's memory as it is read beside QEMU's stream, mostly where it is a file: and sending it from there. */
export { type CacheRun, CaptureBlock, type FileBlock } from './captureBlock.js';
export { PagerError, type PagerErrorCode } from './errors.js';
export { FileCapture, type FileCaptureOptions, type KeptRun, type PageCounts, type Taken } from './fileCapture.js';
export type { SentSet } from './flights.js';
export { HeldPages } from './heldPages.js';
export { HintPass } from './hintPass.js';
export type { HintedStretch } from './hintTable.js';
export { MemoryFile } from './memoryFile.js';
export type { FileRun, MemorySource } from './memorySource.js';
export { groupPages } from './pageGroups.js';
export { type Digester, heldDisk, isZero, type PageBatch } from './pageTeller.js';
export { headForPostcopy, type PostcopyHead } from './postcopyHead.js';
export { ProcessMemory } from './processMemory.js';
export type { WrittenPage } from './writeWatch.js';
