/**
 * How fast the stream is decoded, and decoded and encoded again, and what it costs to verify as much memory: in memory, no
 * sockets, no QEMU.
 *
 * The stream is of a 1.2 GiB guest, three pages out of four with contents, in runs as guests have them. It is fed in
 * chunks of 64 KiB, what a Node.js socket gives.
 */
import { MemoryDigest, pageBytes, RunDigester } from '../relay/digest.js';
import { StreamDecoder } from '../stream/decoder.js';
import { StreamEncoder } from '../stream/encoder.js';
import type { RamBlock } from '../stream/handler.js';
import { passThrough } from '../stream/passThrough.js';

const ROUNDS = 7;
const CHUNK_BYTES = 64 * 1024;
const STREAM_BYTES = 2 ** 30;
const PAGES_PER_SECTION = 2048;
const BATCH_BYTES = 256 * 1024;

const RAM: RamBlock = { name: 'pc.ram', index: 0, lengthBytes: 2 ** 32, pageSizeBytes: null, gpa: null };

function syntheticStream(): Buffer {
  const encoder = new StreamEncoder({ batchBytes: STREAM_BYTES + 2 ** 20 });
  const page = Buffer.alloc(4096);
  encoder.header();
  encoder.sectionStart('start', 2, 'ram', 0, 4);
  encoder.ramBlocks([RAM]);
  for (let index = 0; encoder.pendingBytes < STREAM_BYTES; index += 1) {
    if (index % PAGES_PER_SECTION === 0) {
      encoder.eos();
      encoder.footer(2);
      encoder.sectionContinue('part', 2);
    }
    page.writeUInt32LE(index, 0);
    if (index % 64 < 48) encoder.page(RAM, index, page, 0);
    else encoder.zeroPage(RAM, index);
  }
  encoder.eos();
  encoder.footer(2);
  encoder.eof();
  return encoder.take();
}

function feed(decoder: StreamDecoder, stream: Buffer, afterChunk: () => void): void {
  for (let at = 0; at < stream.length; at += CHUNK_BYTES) {
    decoder.feed(stream.subarray(at, at + CHUNK_BYTES));
    afterChunk();
  }
  decoder.end();
}

function decode(stream: Buffer): void {
  let pages = 0;
  let sum = 0;
  const decoder = new StreamDecoder({
    page(_block, pageIndex, source, start) {
      pages += 1;
      sum += pageIndex + source[start]!;
    },
    zeroPage: () => {
      pages += 1;
    },
  });
  feed(decoder, stream, () => {});
  if (pages === 0 || sum === 0) throw new Error('Nothing was decoded');
}

/** What the engine does with every page at least once: look at all of its bytes. */
function decodeAndCompare(stream: Buffer): void {
  const known = Buffer.alloc(4096);
  let equal = 0;
  const decoder = new StreamDecoder({
    page(_block, pageIndex, source, start) {
      known.writeUInt32LE(pageIndex, 0);
      if (known.compare(source, start, start + 4096) === 0) equal += 1;
    },
    zeroPage() {},
  });
  feed(decoder, stream, () => {});
  if (equal === 0) throw new Error('No page was as it should be');
}

function decodeAndEncode(stream: Buffer): void {
  const encoder = new StreamEncoder({ batchBytes: 2 * BATCH_BYTES });
  const decoder: StreamDecoder = new StreamDecoder(passThrough(encoder, () => decoder.lastFlags));
  let bytes = 0;
  feed(decoder, stream, () => {
    if (encoder.pendingBytes < BATCH_BYTES) return;
    const batch = encoder.take();
    bytes += batch.length;
    encoder.recycle(batch);
  });
  if (bytes + encoder.pendingBytes !== stream.length) throw new Error('The stream was not encoded as it was');
}

const runPages = 64;

/** What each relay does so that the two can be compared: a digest for each run, and one root over all of them. */
function verify(memory: Buffer): void {
  const digester = new RunDigester(Buffer.alloc(32, 1));
  const table = new MemoryDigest([{ name: 'pc.ram', lengthBytes: memory.length }]);
  const runBytes = runPages * pageBytes;
  for (let at = 0; at + runBytes <= memory.length; at += runBytes)
    table.setRun(0, at / pageBytes, 0, runPages, digester.digest(memory.subarray(at, at + runBytes)));
  if (table.root().length === 0) throw new Error('Nothing was verified');
}

function measure(name: string, stream: Buffer, run: (stream: Buffer) => void): string {
  const rates: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const start = process.hrtime.bigint();
    run(stream);
    rates.push(stream.length / Number(process.hrtime.bigint() - start));
  }
  rates.sort((a, b) => a - b);
  const shown = [rates[0]!, rates[Math.floor(ROUNDS / 2)]!, rates[ROUNDS - 1]!];
  return [name.padEnd(20), ...shown.map((rate) => rate.toFixed(2).padStart(8))].join('');
}

const stream = syntheticStream();
console.log(
  `${(stream.length / 2 ** 30).toFixed(2)} GiB of stream in chunks of ${CHUNK_BYTES / 1024} KiB, ${ROUNDS} rounds; GB/s`,
);
console.log(
  ['', 'min', 'median', 'max'].map((head, column) => (column === 0 ? head.padEnd(20) : head.padStart(8))).join(''),
);
console.log(measure('decode', stream, decode));
console.log(measure('decode and compare', stream, decodeAndCompare));
console.log(measure('decode and encode', stream, decodeAndEncode));
console.log(measure('verify', stream, verify));
