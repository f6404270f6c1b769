import { type MemoryDigest, pageBytes, type RunDigester } from './digest.js';
import { type Batch, recordKind } from './link/batch.js';

/** Notes the versions that a batch carries. Both relays do it record by record, so that their roots can be compared. */
export function digestBatch(memory: MemoryDigest, digester: RunDigester, { records, pages }: Batch): void {
  let at = 0;
  for (const { kind, block, page, count, fill, digest } of records) {
    if (kind === recordKind.fill) memory.setFill(block, page, count, fill);
    else if (kind === recordKind.reference) memory.setRun(block, page, 0, count, digest!);
    else {
      const bytes = pages.subarray(at, at + count * pageBytes);
      memory.setRun(block, page, 0, count, digester.digest(bytes));
      at += bytes.length;
    }
  }
}
