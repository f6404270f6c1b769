export type { DiskReader, OpenDiskOptions } from './diskReader.js';
export { DiskError, type DiskErrorCode } from './errors.js';
export { isReadableFormat, openDisk } from './openDisk.js';
export { openRawDisk } from './rawDisk.js';
