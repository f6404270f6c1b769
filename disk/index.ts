export type { DiskReader, OpenDiskOptions } from './diskReader.js';
export { DiskError, type DiskErrorCode } from './errors.js';
export { type ImageWriter, writersOf } from './inUse.js';
export { type DiskMatching, type GuestDisk, type HostDisk, type MatchEvidence, matchDisks } from './match.js';
export type { DiskImage } from './nbd/image.js';
export { isReadableFormat, openDisk } from './openDisk.js';
export { type DiskProof, type DiskSample, type DiskSamples, proveSameDisk, sampleDisk } from './proof.js';
export { isWaitingForStorage, openRawDisk } from './rawDisk.js';
