/** The numbers of QEMU's migration stream (migration/savevm.c, ram.c and migration.h of QEMU 7.2 to 10.0). */

/** `QEVM`, the first four bytes of every stream. */
export const STREAM_MAGIC = 0x5145564d;
export const STREAM_VERSION = 3;

/** The only page size handled: x86-64's, and the unit of every RAM record. */
export const PAGE_BYTES = 4096;

export const SectionType = {
  eof: 0x00,
  start: 0x01,
  part: 0x02,
  end: 0x03,
  full: 0x04,
  subsection: 0x05,
  vmdesc: 0x06,
  configuration: 0x07,
  command: 0x08,
  footer: 0x7e,
} as const;

/** The low twelve bits of a RAM record's be64. */
export const RamFlag = {
  zero: 0x02,
  memSize: 0x04,
  page: 0x08,
  eos: 0x10,
  /** The record is about the block that an earlier record named last; no name follows. */
  continue: 0x20,
  xbzrle: 0x40,
  hook: 0x80,
  compressedPage: 0x100,
  multifdFlush: 0x200,
} as const;

export const RAM_SECTION_NAME = 'ram';
export const RAM_SECTION_VERSION = 4;

export const StreamCommand = {
  openReturnPath: 1,
  ping: 2,
  postcopyAdvise: 3,
  postcopyListen: 4,
  postcopyRun: 5,
  postcopyRamDiscard: 6,
  packaged: 7,
  enableColo: 8,
  postcopyResume: 9,
  receivedBitmap: 10,
  switchoverStart: 11,
} as const;

export const ReturnPathType = {
  shut: 1,
  pong: 2,
  requestPagesId: 3,
  requestPages: 4,
  receivedBitmap: 5,
  resumeAck: 6,
  switchoverAck: 7,
} as const;
