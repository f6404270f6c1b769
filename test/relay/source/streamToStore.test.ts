import { beforeEach, describe, expect, test } from 'vitest';
import { HeldPages, heldDisk } from '../../../pager/index.js';
import { newCounters } from '../../../relay/counters.js';
import { RunDigester } from '../../../relay/digest.js';
import { BatchBuilder, decodeBatch } from '../../../relay/link/batch.js';
import { SentAhead } from '../../../relay/source/sentAhead.js';
import { StreamToStore } from '../../../relay/source/streamToStore.js';
import type { RamBlock, Section } from '../../../stream/handler.js';

const pageBytes = 4096;
const digester = new RunDigester(Buffer.alloc(32, 3));
const section = (type: Section['type']): Section => ({ ...{ type, id: 2, name: 'ram', instance: 0, version: 4 } });

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, at) => from + at);
}

function pageOf(page: number, version = 1): Buffer {
  return Buffer.alloc(pageBytes, `${page} ${version} `);
}

/** A stream of a guest of so many pages, and what is put in the store. */
function guest(pages: number) {
  const block: RamBlock = { name: 'ram', index: 0, lengthBytes: pages * pageBytes, pageSizeBytes: null, gpa: null };
  const put: string[] = [];
  const references: { page: number; count: number; disk: number; digest: Buffer; bytes: Buffer }[] = [];
  const store = {
    putPage: (_block: number, page: number, source: Buffer, start: number) => {
      const bytes = source.subarray(start, start + pageBytes);
      put.push(`${page}${bytes.equals(pageOf(page)) ? '' : bytes.equals(pageOf(page, 2)) ? ' changed' : ' wrong'}`);
    },
    putFill: (_block: number, page: number) => void put.push(`${page} fill`),
    putReference: (
      _block: number,
      page: number,
      count: number,
      disk: number,
      _: number,
      digest: Buffer,
      all: Buffer,
    ) => {
      put.push(`${page}+${count}`);
      references.push({ page, count, disk, digest, bytes: Buffer.from(all) });
    },
  };
  const stream = new StreamToStore({ began: () => store, ramEnded() {} }, newCounters(), digester);
  const begin = () => {
    stream.ramBlocks([block]);
    stream.sectionEnd(section('start'));
  };
  const send = (page: number, version = 1) => stream.page(block, page, pageOf(page, version), 0);
  const zero = (page: number) => stream.zeroPage(block, page, 0);
  return { block, stream, put, references, begin, send, zero };
}

describe('what was sent ahead', () => {
  let one: ReturnType<typeof guest>;
  let held: HeldPages;

  /** Of the pages from 4 on, those of one group each together. */
  beforeEach(async () => {
    one = guest(48);
    const source = {
      read: (offset: number, lengthBytes: number, into: Buffer, start = 0) => {
        for (let at = 0; at < lengthBytes; at += pageBytes) pageOf((offset + at) / pageBytes).copy(into, start + at);
      },
      async *dataRuns() {
        yield { offset: 4 * pageBytes, lengthBytes: 44 * pageBytes };
      },
      nextData: (offset: number) => offset,
    };
    const place = { file: source, fileOffset: 0 };
    const ahead = new SentAhead({ blocks: [{ name: 'ram', lengthBytes: 48 * pageBytes, place }], limitBytes: 2 ** 20 });
    await ahead.survey(new AbortController().signal);
    held = new HeldPages(digester, 2 ** 20);
    const builder = new BatchBuilder();
    while (!ahead.isOver) ahead.fill(builder, 128);
    const { records, pages } = decodeBatch(builder.take(false), [48]);
    let at = 0;
    for (const { page, count } of records) {
      held.hold(0, page, count, pages, at);
      at += count * pageBytes;
    }
    expect(held.heldBytes).toBe(44 * pageBytes);
    one.stream.useAhead(ahead);
    one.begin();
  });

  /** The destination has each of them, by the digest of just its pages. */
  const expectHeld = () => {
    for (const { page, count, disk, digest, bytes } of one.references) {
      expect(disk).toBe(heldDisk);
      const expected = Buffer.concat(range(page, page + count).map((at) => pageOf(at)));
      expect(bytes.equals(expected)).toBe(true);
      expect(digest.equals(digester.digest(expected))).toBe(true);
      expect(held.take(0, page, count, digest)?.equals(expected)).toBe(true);
    }
  };

  test('is referred to, group by group, and the rest is put in as it is', () => {
    for (const page of range(0, 48)) one.send(page);
    one.stream.sectionEnd(section('part'));
    expect(one.put).toEqual(['0', '1', '2', '3', '4+12', '16+16', '32+16']);
    expectHeld();
    expect(held.heldBytes).toBe(0);
  });

  test('is referred to around what has changed since, which is put in as it is now', () => {
    const changed = [4, 15, 20, 21, 25, 40];
    for (const page of range(0, 48)) one.send(page, changed.includes(page) ? 2 : 1);
    one.stream.sectionEnd(section('part'));
    expect(one.put).toEqual([
      ...['0', '1', '2', '3', '4 changed', '5+10', '15 changed'],
      ...['16+4', '20 changed', '21 changed', '22+3', '25 changed', '26+6'],
      ...['32+8', '40 changed', '41+7'],
    ]);
    expectHeld();
    expect(held.heldBytes).toBe(changed.length * pageBytes);
  });

  test('is referred to in parts where a section ends among it', () => {
    for (const page of range(16, 24)) one.send(page);
    one.stream.sectionEnd(section('part'));
    for (const page of range(24, 32)) one.send(page, page === 30 ? 2 : 1);
    one.stream.sectionEnd(section('part'));
    expect(one.put).toEqual(['16+8', '24+6', '30 changed', '31+1']);
    expectHeld();
  });

  test('is not referred to once more when QEMU sends it again', () => {
    for (const page of range(16, 32)) one.send(page, page === 18 ? 2 : 1);
    one.stream.sectionEnd(section('part'));
    expect(one.put.splice(0)).toEqual(['16+2', '18 changed', '19+13']);
    for (const page of [16, 18, 31]) one.send(page);
    one.stream.sectionEnd(section('part'));
    expect(one.put).toEqual(['16', '18', '31']);
  });
});

describe('what QEMU has sent again', () => {
  const written = (one: ReturnType<typeof guest>) => one.stream.written.map(({ page }) => page);

  test('is what came after its first pass, in its order and as often, without what is all of one byte', () => {
    const one = guest(48);
    one.begin();
    for (const page of range(0, 48))
      if (page % 3 === 0) one.zero(page);
      else one.send(page);
    one.stream.sectionEnd(section('part'));
    expect(one.stream.written).toEqual([]);
    for (const page of [30, 5, 40]) one.send(page);
    one.zero(6);
    for (const page of [2, 30]) one.send(page);
    one.stream.sectionEnd(section('end'));
    expect(one.stream.written).toEqual([30, 5, 40, 2, 30].map((page) => ({ block: 0, page, count: 1 })));
  });

  test('is what came last where it is more than a guest touches at once', () => {
    const one = guest(16);
    one.begin();
    for (const page of range(0, 16)) one.zero(page);
    const order = range(0, 20_000).map((at) => (at * 5 + (at >>> 4)) % 16);
    for (const [at, page] of order.entries()) {
      one.send(page);
      if (at === 4094 || at === 4095 || at === 4096)
        expect(written(one)).toEqual(order.slice(Math.max(0, at - 4095), at + 1));
    }
    expect(written(one)).toEqual(order.slice(-4096));
  });
});
