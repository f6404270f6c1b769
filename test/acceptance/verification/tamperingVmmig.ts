/**
 * `vmmig` with a destination relay that spoils what it delivers: the first batch that allows for it, as
 * `VMMIG_TEST_TAMPER` says. For tests: the roots have to tell.
 */

import { MemoryAssembly } from '../../../relay/destination/memoryAssembly.js';
import { recordKind } from '../../../relay/link/batch.js';
import { decodeWireBatch, encodeWireBatch, type WireBatch } from '../../relay/wire.js';

const pageBytes = 4096;
const isBytes = ({ kind }: { kind: number }) => kind === recordKind.bytes;

/** One page's bytes are others. */
function corrupt(batch: WireBatch): WireBatch | null {
  if (!batch.records.some(isBytes)) return null;
  const pages = Buffer.from(batch.pages);
  pages[pages.length - 5]! ^= 4;
  return { ...batch, pages };
}

/** The last page of a batch is not delivered. */
function drop(batch: WireBatch): WireBatch | null {
  const last = batch.records.at(-1);
  if (last === undefined || !isBytes(last)) return null;
  const records =
    last.count > 1 ? [...batch.records.slice(0, -1), { ...last, count: last.count - 1 }] : batch.records.slice(0, -1);
  return { ...batch, records, pages: batch.pages.subarray(0, batch.pages.length - pageBytes) };
}

const delivered = new Map<string, Buffer>();

/** A page that was delivered before is delivered again as it was then. */
function makeStale(batch: WireBatch): WireBatch | null {
  let at = 0;
  for (const { block, page, count } of batch.records.filter(isBytes)) {
    for (let offset = 0; offset < count; offset++, at += pageBytes) {
      const key = `${block}/${page + offset}`;
      const now = batch.pages.subarray(at, at + pageBytes);
      const old = delivered.get(key);
      if (old === undefined) delivered.set(key, Buffer.from(now));
      else if (!old.equals(now)) {
        const pages = Buffer.from(batch.pages);
        old.copy(pages, at);
        return { ...batch, pages };
      }
    }
  }
  return null;
}

const tamper = { corrupt, drop, stale: makeStale }[process.env.VMMIG_TEST_TAMPER ?? ''];
if (tamper === undefined) throw new Error('VMMIG_TEST_TAMPER is to be corrupt, drop or stale');

const { batch: deliver } = MemoryAssembly.prototype;
let isDone = false;
MemoryAssembly.prototype.batch = function (this: MemoryAssembly, sequence, payload) {
  // What is compressed is left as it is: the test asks for `--no-compress`.
  const spoilt = isDone || payload[0] !== 0 ? null : tamper(decodeWireBatch(payload));
  isDone ||= spoilt !== null;
  deliver.call(
    this,
    sequence,
    spoilt === null ? payload : encodeWireBatch({ ...spoilt, rawBytes: spoilt.pages.length }),
  );
};

await import('../../../cli/main.js');
