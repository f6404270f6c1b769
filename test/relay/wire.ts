/**
 * Batches written and read by the grammar in docs/link-protocol.md, apart from the code under test, so that tests can
 * make ones that no relay would send.
 */
const pageBytes = 4096;

export interface WireRecord {
  kind: number;
  fill?: number;
  block?: number;
  page: number;
  count: number;
  /** References only. */
  disk?: number;
  diskOffsetBytes?: number;
  digest?: Buffer;
}

export interface WireBatch {
  encoding: number;
  rawBytes: number;
  records: WireRecord[];
  pages: Buffer;
}

export function encodeWireBatch(batch: Partial<WireBatch> & { records: WireRecord[]; recordCount?: number }): Buffer {
  const { records, pages = Buffer.alloc(0) } = batch;
  const header = Buffer.alloc(7);
  header[0] = batch.encoding ?? 0;
  header.writeUInt16BE(batch.recordCount ?? records.length, 1);
  header.writeUInt32BE(batch.rawBytes ?? pages.length, 3);
  return Buffer.concat([header, ...records.map(encodeRecord), pages]);
}

function encodeRecord(record: WireRecord): Buffer {
  const head = Buffer.alloc(10);
  head[0] = record.kind;
  head[1] = record.fill ?? 0;
  head.writeUInt16BE(record.block ?? 0, 2);
  head.writeUInt32BE(record.page, 4);
  head.writeUInt16BE(record.count, 8);
  if (record.kind !== 2) return head;
  const reference = Buffer.alloc(8);
  reference.writeUInt16BE(record.disk ?? 0, 0);
  reference.writeUIntBE(record.diskOffsetBytes ?? 0, 2, 6);
  return Buffer.concat([head, reference, record.digest ?? Buffer.alloc(16)]);
}

export function decodeWireBatch(payload: Buffer): WireBatch {
  const records: WireRecord[] = [];
  let at = 7;
  for (let left = payload.readUInt16BE(1); left > 0; left--) {
    const kind = payload[at]!;
    const record: WireRecord = {
      kind,
      fill: payload[at + 1]!,
      block: payload.readUInt16BE(at + 2),
      page: payload.readUInt32BE(at + 4),
      count: payload.readUInt16BE(at + 8),
    };
    at += 10;
    if (kind === 2) {
      record.disk = payload.readUInt16BE(at);
      record.diskOffsetBytes = payload.readUIntBE(at + 2, 6);
      record.digest = payload.subarray(at + 8, at + 24);
      at += 24;
    }
    records.push(record);
  }
  return { encoding: payload[0]!, rawBytes: payload.readUInt32BE(3), records, pages: payload.subarray(at) };
}

/** One page that holds one byte throughout. */
export function pageOf(fill: number): Buffer {
  return Buffer.alloc(pageBytes, fill);
}
