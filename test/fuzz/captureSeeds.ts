/**
 * Makes `seeds/stream-*.bin`: streams of real QEMUs, cut down to what their shape needs, two pages and some zero pages,
 * and the beginning of the device state. To be run again for another QEMU: `npx tsx test/fuzz/captureSeeds.ts`.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { passThrough, StreamDecoder, StreamEncoder } from '../../stream/index.js';
import { capture, kinds } from '../stream/corpus.js';

const versions = ['7.2', '10.0'] as const;
const keptPages = 2;
const keptZeroPages = 6;
const keptTailBytes = 1500;

function cutDown(stream: Buffer): Buffer {
  const encoder = new StreamEncoder();
  let pages = 0;
  let zeroPages = 0;
  let tailBytes = 0;
  const decoder: StreamDecoder = new StreamDecoder({
    ...passThrough(encoder, () => decoder.lastFlags),
    page: (...page) => {
      if (pages++ < keptPages) encoder.page(...page);
    },
    zeroPage: (...page) => {
      if (zeroPages++ < keptZeroPages) encoder.zeroPage(...page);
    },
    tail: (bytes) => {
      encoder.tail(bytes.subarray(0, Math.max(0, keptTailBytes - tailBytes)));
      tailBytes += bytes.length;
    },
  });
  decoder.feed(stream);
  decoder.end();
  encoder.eof();
  return encoder.take();
}

const directory = await mkdtemp(join(tmpdir(), 'vmmig-seeds-'));
try {
  const wanted = kinds(directory).filter(({ args }) => args?.includes('5G') !== true);
  for (const version of versions)
    for (const [at, kind] of wanted.entries()) {
      const { stream } = await capture(version, kind, directory);
      const path = fileURLToPath(new URL(`./seeds/stream-${version}-${at}.bin`, import.meta.url));
      await writeFile(path, cutDown(stream));
      console.log(`${path}: ${kind.what}`);
    }
} finally {
  await rm(directory, { recursive: true, force: true });
}
