export type { DiskReader, OpenDiskOptions } from './diskReader.js';
export { DiskError, type DiskErrorCode } from './errors.js';
export { type DiskMatching, type GuestDisk, type HostDisk, type MatchEvidence, matchDisks } from './match.js';
export { isReadableFormat, openDisk } from './openDisk.js';
export { openRawDisk } from './rawDisk.js';
