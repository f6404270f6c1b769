import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { QemuVersion } from '../../lab/qemu.js';
import {
  describeDevices,
  formatSummary,
  passThrough,
  type RamBlock,
  StreamDecoder,
  StreamEncoder,
  type StreamSummary,
  splitTail,
  summarise,
} from '../../stream/index.js';
import { capture, type Kind, kinds } from './corpus.js';
import { type Guest, scratchDirectory, startGuest, VERSIONS } from './guest.js';
import { cut } from './recorder.js';

function reencode(stream: Buffer, chunkBytes: number): { encoded: Buffer; tail: Buffer } {
  const encoder = new StreamEncoder();
  const tail: Buffer[] = [];
  const encode = passThrough(encoder, () => decoder.lastFlags);
  const decoder: StreamDecoder = new StreamDecoder({
    ...encode,
    tail(bytes) {
      tail.push(Buffer.from(bytes));
      encode.tail(bytes);
    },
  });
  const encoded: Buffer[] = [];
  for (const chunk of cut(stream, chunkBytes)) {
    decoder.feed(chunk);
    if (encoder.pendingBytes > 200_000) encoded.push(encoder.take());
  }
  decoder.end();
  return { encoded: Buffer.concat([...encoded, encoder.take()]), tail: Buffer.concat(tail) };
}

async function* chunksOf(stream: Buffer): AsyncGenerator<Buffer> {
  yield* cut(stream, 65536);
}

const scratch = await scratchDirectory();
afterAll(() => scratch[Symbol.asyncDispose]());

const corpus = VERSIONS.flatMap((version) => kinds(scratch.path).map((kind) => ({ version, kind, what: kind.what })));
describe.each(corpus)('the stream of $what, by QEMU $version', ({ version, kind }) => {
  let stream: Buffer;
  let memory: Buffer;
  let encoded: Buffer;
  let tail: Buffer;
  let summary: StreamSummary;
  beforeAll(async () => {
    ({ stream, memory } = await capture(version, kind, scratch.path));
    ({ encoded, tail } = reencode(stream, 65536));
    summary = await summarise(chunksOf(stream));
  });

  it('is the same after decoding and encoding, in any chunks', () => {
    expect(encoded.equals(stream)).toBe(true);
    for (const size of [4095, 100_003, stream.length]) expect(reencode(stream, size).encoded.equals(stream)).toBe(true);
  });

  it('has every page of every block, but for blocks in shared files', () => {
    expect(summary.problem).toBeNull();
    expect(summary.configuration?.machine).toBe(`pc-q35-${version}`);
    expect(summary.configuration?.capabilities).toEqual(
      kind.capabilities?.includes('x-ignore-shared') ? ['x-ignore-shared'] : null,
    );
    const main = summary.blocks.reduce((a, b) => (a.lengthBytes > b.lengthBytes ? a : b));
    expect(main.lengthBytes).toBe(kind.args!.includes('5G') ? 5 * 2 ** 30 : 64 * 2 ** 20);
    for (const block of summary.blocks) {
      const isShared = block.name === 'm0';
      expect(block.uniquePages).toBe(isShared ? 0 : block.lengthBytes / 4096);
      expect(block.gpa).toEqual(kind.capabilities?.includes('x-ignore-shared') ? expect.any(Number) : null);
    }
    expect(formatSummary(summary)).toContain(main.name);
  });

  it('has device state that the description accounts for to the byte', () => {
    const { deviceState, vmdesc } = splitTail(tail);
    const devices = describeDevices(vmdesc!)!;
    expect(summary.devices).toEqual(devices);
    let at = 0;
    for (const { name, lengthBytes } of devices) {
      expect(deviceState[at]).toBe(4);
      expect(deviceState.toString('latin1', at + 6, at + 6 + name.length)).toBe(name);
      at += lengthBytes;
      expect(deviceState[at - 5]).toBe(0x7e);
    }
    expect(at).toBe(deviceState.length);
  });

  it('is loaded by QEMU in another order of pages, with the same memory', async () => {
    await using guest = await load(version, kind, reorder(stream));
    expect((await guest.memory()).equals(memory)).toBe(true);
  });

  it('is loaded by QEMU, encoded anew, with the same memory, and the guest runs', async () => {
    await using guest = await load(version, kind, encoded);
    expect((await guest.memory()).equals(memory)).toBe(true);
    await guest.qmp.execute('cont');
    expect(await guest.qmp.execute('query-status')).toMatchObject({ status: 'running' });
  });
});

async function load(version: QemuVersion, kind: Kind, stream: Buffer): Promise<Guest> {
  const path = join(scratch.path, 'encoded');
  await writeFile(path, stream);
  const guest = await startGuest(version, scratch.path, { ...kind, incoming: true });
  try {
    await guest.qmp.execute('migrate-incoming', { uri: `exec:cat ${path}` });
    await guest.migration('completed');
    return guest;
  } catch (error) {
    await guest[Symbol.asyncDispose]();
    throw error;
  }
}

/** What a relay may make of a stream: only the last version of each page, late and backwards, zero pages first. */
function reorder(stream: Buffer): Buffer {
  const encoder = new StreamEncoder();
  const zeroes = new Map<number, [block: RamBlock, pageIndex: number, fill: number]>();
  const pages = new Map<number, [block: RamBlock, pageIndex: number, bytes: Buffer]>();
  const encode = passThrough(encoder, () => decoder.lastFlags);
  const decoder: StreamDecoder = new StreamDecoder({
    ...encode,
    page(block, pageIndex, source, start) {
      const key = block.index * 2 ** 40 + pageIndex;
      zeroes.delete(key);
      pages.set(key, [block, pageIndex, Buffer.from(source.subarray(start, start + 4096))]);
    },
    zeroPage(block, pageIndex, fill) {
      const key = block.index * 2 ** 40 + pageIndex;
      pages.delete(key);
      zeroes.set(key, [block, pageIndex, fill]);
    },
    sectionEnd(section) {
      if (section.type === 'end') {
        for (const zero of [...zeroes.values()].reverse()) encoder.zeroPage(...zero);
        for (const [block, pageIndex, bytes] of [...pages.values()].reverse()) encoder.page(block, pageIndex, bytes, 0);
      }
      encode.sectionEnd(section);
    },
  });
  decoder.feed(stream);
  decoder.end();
  return encoder.take();
}
