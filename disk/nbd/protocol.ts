/**
 * The NBD protocol's numbers, as far as a client needs them that only reads. All integers are big-endian.
 * Source: the NBD project's doc/proto.md.
 *
 *     negotiation   server: INIT_MAGIC OPTION_MAGIC u16 flags          client: u32 flags
 *       option      client: OPTION_MAGIC u32 option u32 length data
 *       reply       server: OPTION_REPLY_MAGIC u32 option u32 type u32 length data
 *       EXPORT_NAME is answered with u64 size u16 flags [124 zeroes], or by hanging up
 *     transmission
 *       request     client: u32 REQUEST_MAGIC u16 flags u16 command u64 cookie u64 offset u32 length
 *       simple      server: u32 SIMPLE_REPLY_MAGIC u32 error u64 cookie [data]
 *       chunk       server: u32 CHUNK_MAGIC u16 flags u16 type u64 cookie u32 length payload
 */
import { DiskError } from '../errors.js';

/** "NBDMAGIC", "IHAVEOPT", and what servers of the old negotiation say instead of the latter. */
export const INIT_MAGIC = 0x4e42444d41474943n;
export const OPTION_MAGIC = 0x49484156454f5054n;
export const OLD_STYLE_MAGIC = 0x00420281861253n;
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;

/** Of both sides' first flags. */
export const FLAG_FIXED_NEWSTYLE = 1;
export const FLAG_NO_ZEROES = 2;

export const option = { exportName: 1, go: 7, structuredReply: 8 } as const;
export const optionReply = { ack: 1, info: 3, isError: 2 ** 31, unsupported: 2 ** 31 + 1 } as const;
export const info = { export: 0, blockSize: 3 } as const;

export const REQUEST_MAGIC = 0x25609513;
export const REQUEST_BYTES = 28;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const CHUNK_MAGIC = 0x668e33ef;
export const command = { read: 0, disconnect: 2 } as const;
export const FLAG_DONE = 1;
export const chunkType = { none: 0, data: 1, hole: 2, isError: 2 ** 15, errorOffset: 2 ** 15 + 2 } as const;

/** The longest string the protocol allows. */
export const MAX_STRING_BYTES = 4096;

/** The server has sent what no server may send: nothing that follows can be understood. */
export function violation(message: string): DiskError {
  return new DiskError('VMMIG_DISK_SERVER', `the NBD server breaks the protocol: ${message}`);
}
