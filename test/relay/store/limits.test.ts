import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BatchBuilder } from '../../../relay/link/batch.js';
import { PageStore } from '../../../relay/store/pageStore.js';
import { Destination, expectEmpty, Guest, pageBytes } from './guest.js';

const MiB = 1024 * 1024;
const pagesOfBlock = [8192];
const blocks = [{ name: 'ram', lengthBytes: 8192 * pageBytes }];
const limitBytes = 8 * MiB;

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'vmmig-store-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

function rig(spillPath: string | null, isCompressible: boolean) {
  const store = new PageStore(blocks, { limitBytes, spillPath });
  const guest = new Guest(store, isCompressible);
  return { store, guest, destination: new Destination(guest, pagesOfBlock), builder: new BatchBuilder() };
}

/** Empty for a descriptor that is gone meanwhile. */
function readlinkOf(descriptor: string): string {
  try {
    return readlinkSync(descriptor);
  } catch {
    return '';
  }
}

describe('memory', () => {
  test('is compressed from half of the limit on, and comes back as it was', async () => {
    const { store, guest, destination, builder } = rig(null, true);
    await using _ = store;
    guest.write(0, 0, 1024);
    expect(store.compressedBytes).toBe(0);
    guest.write(0, 1024, 4096);
    expect(store.compressedBytes).toBeGreaterThan(0);
    expect(store.heldBytes).toBeLessThan(limitBytes / 2 + MiB);
    expect(store.isFull).toBe(false);
    // Some of what is compressed is superseded, and some taken out of order.
    guest.write(0, 10, 100);
    guest.fill(0, 200, 300, 0);
    store.prefer('recent');
    store.moveToFront(0, 700, 50);
    destination.drain(builder);
    destination.expectLatest();
    expectEmpty(store);
  });

  test('ends at the limit: the store is full until an eighth is free again', async () => {
    const { store, guest, destination, builder } = rig(null, false);
    await using _ = store;
    let page = 0;
    while (!store.isFull) guest.write(0, page++, 1);
    expect(page * pageBytes).toBeGreaterThanOrEqual(limitBytes);
    expect(store.heldBytes).toBeLessThanOrEqual(limitBytes + MiB);
    let released = 0;
    while (store.isFull) {
      destination.receive(store.fillBatch(builder, 16)!, builder);
      destination.acknowledge(0, true);
      released += 16;
    }
    expect(released * pageBytes).toBeGreaterThan(limitBytes / 8 - MiB);
    expect(released * pageBytes).toBeLessThan(limitBytes / 4);
    destination.drain(builder);
    destination.expectLatest();
    expectEmpty(store);
  });

  test('is used again where pages were superseded: a guest that rewrites a few does not fill the store', async () => {
    const { store, guest, destination, builder } = rig(null, false);
    await using _ = store;
    for (let round = 0; round < 40; round++) guest.write(0, (round * 97) % 1000, 400);
    expect(store.isFull).toBe(false);
    destination.drain(builder);
    destination.expectLatest();
    expectEmpty(store);
  });

  test('is refused when it is too little to work with', () => {
    const spillPath = path.join(directory, 'spill');
    for (const bytes of [0, 1024, Number.NaN])
      expect(() => new PageStore(blocks, { limitBytes: bytes, spillPath })).toThrow(
        expect.objectContaining({ code: 'VMMIG_STORE_LIMIT' }),
      );
    expect(existsSync(spillPath)).toBe(false);
  });
});

describe('the spill file', () => {
  test('takes what exceeds the limit, gives it back as it was, and has no name', async () => {
    const spillPath = path.join(directory, 'spill');
    for (const isCompressible of [false, true]) {
      const { store, guest, destination, builder } = rig(spillPath, isCompressible);
      await using _ = store;
      expect(existsSync(spillPath)).toBe(false);
      for (let page = 0; page < 8192; page += 64) {
        guest.write(0, page, 64);
        expect(store.heldBytes).toBeLessThanOrEqual(limitBytes);
      }
      if (!isCompressible) expect(store.spilledBytes).toBeGreaterThanOrEqual(24 * MiB);
      expect(store.isFull).toBe(false);
      guest.write(0, 5, 300);
      guest.read(0, 1000, 64);
      store.moveToFront(0, 3000, 100);
      destination.drain(builder);
      destination.expectLatest();
      expectEmpty(store);
    }
  });

  test('takes turns with memory while the guest rewrites its pages, and is empty in the end', async () => {
    const spillPath = path.join(directory, 'spill');
    const { store, guest, destination, builder } = rig(spillPath, false);
    await using _ = store;
    for (let round = 0; round < 12; round++) {
      guest.write(0, round * 400, 400);
      for (let page = round * 7; page < round * 400; page += 8) guest.write(0, page, 1);
      expect(store.heldBytes).toBeLessThanOrEqual(limitBytes);
    }
    const file = readdirSync('/proc/self/fd')
      .map((fd) => `/proc/self/fd/${fd}`)
      .find((fd) => readlinkOf(fd).startsWith(spillPath))!;
    expect(file).toBeDefined();
    // What was superseded in the file is not taken twice: 18.75 MiB of pages in all.
    expect(statSync(file).size).toBeLessThan(20 * MiB);
    destination.drain(builder);
    destination.expectLatest();
    expectEmpty(store);
    expect(statSync(file).size).toBe(0);
  });

  test('is closed once, and takes and gives nothing afterwards', async () => {
    const { store, guest, builder } = rig(path.join(directory, 'spill'), false);
    guest.write(0, 0, 4096);
    await store[Symbol.asyncDispose]();
    const page = Buffer.alloc(pageBytes);
    const other = openSync(path.join(directory, 'other'), 'w+');
    try {
      await store[Symbol.asyncDispose]();
      const put = () => {
        for (let at = 4096; at < 8192; at++) store.putPage(0, at, page, 0);
      };
      expect(put).toThrow(expect.objectContaining({ code: 'VMMIG_STORE_SPILL_IO' }));
      expect(() => store.fillBatch(builder, 1)).toThrow(expect.objectContaining({ code: 'VMMIG_STORE_SPILL_IO' }));
      expect(fstatSync(other).size).toBe(0);
    } finally {
      closeSync(other);
    }
  });

  test('is never an existing file, nor one where none can be', async () => {
    const existing = path.join(directory, 'existing');
    writeFileSync(existing, 'mine');
    for (const spillPath of [existing, path.join(directory, 'none', 'spill')])
      expect(() => new PageStore(blocks, { limitBytes, spillPath })).toThrow(
        expect.objectContaining({ code: 'VMMIG_STORE_SPILL_OPEN' }),
      );
    expect(existsSync(existing)).toBe(true);
  });

  test.runIf(process.getuid?.() === 0)('on a full disk is a typed error, and loses nothing', async () => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'vmmig-test', directory]);
    try {
      const { store, guest, destination, builder } = rig(path.join(directory, 'spill'), false);
      await using _ = store;
      let page = 0;
      const put = () => {
        for (; page < 8192; page++) store.putPage(0, page, guest.contentOf(0, page, page), 0);
      };
      expect(put).toThrow(expect.objectContaining({ code: 'VMMIG_STORE_DISK_FULL' }));
      expect(store.spilledBytes).toBeGreaterThan(MiB);
      expect(store.unsent.bytes).toBe(page);
      for (let at = 0; at < page; at++) guest.latest.set(`0:${at}`, { number: at, kind: 'bytes', fill: 0 });
      // It fails in the middle of a reference as well, which then is not there at all.
      const run = Buffer.alloc(64 * pageBytes, 1);
      expect(() => store.putReference(0, 8000, 64, 0, 0, run.subarray(0, 16), run)).toThrow();
      expect(store.unsent).toEqual({ fill: 0, bytes: page, reference: 0 });
      destination.drain(builder);
      destination.expectLatest();
      expectEmpty(store);
    } finally {
      execFileSync('umount', [directory]);
    }
  });
});
