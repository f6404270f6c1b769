/**
 * A guest's memory in the simplest form, and a destination that takes batches: what the store is compared with.
 * A version is a number; its content is made from the number and the page, so that any wrong page shows.
 */
import { randomBytes } from 'node:crypto';
import { expect } from 'vitest';
import { type BatchBuilder, decodeBatch, recordKind } from '../../../relay/link/batch.js';
import type { SentSet } from '../../../relay/store/flights.js';
import type { PageStore } from '../../../relay/store/pageStore.js';

export const pageBytes = 4096;
const noise = randomBytes(1024 * 1024);

export interface Version {
  readonly number: number;
  readonly kind: 'fill' | 'bytes' | 'reference';
  readonly fill: number;
}

/** The version before is `number` 0: never written. */
export class Guest {
  readonly latest = new Map<string, Version>();
  #versions = 0;

  constructor(
    readonly store: PageStore,
    /** Of its pages: whether they can be compressed. */
    private readonly isCompressible: boolean,
  ) {}

  contentOf(block: number, page: number, version: number): Buffer {
    const bytes = Buffer.alloc(pageBytes, `${version} of ${block}:${page} `);
    if (!this.isCompressible) noise.copy(bytes, 64, (version * 4160) % (noise.length - pageBytes));
    return bytes;
  }

  write(block: number, page: number, count: number): void {
    for (let at = page; at < page + count; at++) {
      // Not at the start of what it is in.
      const source = Buffer.alloc(pageBytes + 100);
      this.contentOf(block, at, this.#next(block, at, 'bytes', 0)).copy(source, 100);
      this.store.putPage(block, at, source, 100);
    }
  }

  fill(block: number, page: number, count: number, fill: number): void {
    for (let at = page; at < page + count; at++) {
      const before = this.latest.get(`${block}:${at}`);
      if (before?.kind !== 'fill' || before.fill !== fill) this.#next(block, at, 'fill', fill);
    }
    this.store.putFill(block, page, count, fill);
  }

  read(block: number, page: number, count: number): void {
    const bytes: Buffer[] = [];
    for (let at = page; at < page + count; at++)
      bytes.push(this.contentOf(block, at, this.#next(block, at, 'reference', 0)));
    const run = Buffer.concat(bytes);
    this.store.putReference(block, page, count, 1, page * pageBytes, run.subarray(0, 16), run);
  }

  #next(block: number, page: number, kind: Version['kind'], fill: number): number {
    this.latest.set(`${block}:${page}`, { number: ++this.#versions, kind, fill });
    return this.#versions;
  }
}

interface Pending {
  readonly record: number;
  readonly block: number;
  readonly page: number;
  readonly versions: readonly number[];
}

/** Batches are applied in order, as the link delivers them; references are settled when the batch is acknowledged. */
export class Destination {
  /** By page: the version that has arrived last, and the one that is in place. */
  readonly arrived = new Map<string, number>();
  readonly placed = new Map<string, number>();
  readonly #sent = new Set<string>();
  #underWay: {
    readonly token: number;
    readonly references: readonly Pending[];
    readonly carried: ReadonlyMap<string, number>;
  }[] = [];

  constructor(
    private readonly guest: Guest,
    private readonly pagesOfBlock: readonly number[],
  ) {}

  get underWay(): number {
    return this.#underWay.length;
  }

  /** Takes a batch, which must hold nothing but latest versions that were not sent before. */
  receive(sent: SentSet, builder: BatchBuilder): void {
    const { records, pages } = decodeBatch(builder.take(sent.token % 2 === 0), this.pagesOfBlock);
    const counts: Record<Version['kind'], number> = { fill: 0, bytes: 0, reference: 0 };
    const references: Pending[] = [];
    const carried = new Map<string, number>();
    let at = 0;
    records.forEach((record, index) => {
      const { block, page, count } = record;
      const versions: number[] = [];
      const kind = record.kind === recordKind.fill ? 'fill' : record.kind === recordKind.bytes ? 'bytes' : 'reference';
      counts[kind] += count;
      for (let offset = 0; offset < count; offset++) {
        const key = `${block}:${page + offset}`;
        const { number, fill, kind: latestKind } = this.guest.latest.get(key)!;
        if (this.#sent.has(`${key} ${number}`)) throw new Error(`${key} is sent twice`);
        this.#sent.add(`${key} ${number}`);
        if (kind === 'fill' ? latestKind !== 'fill' || fill !== record.fill : latestKind === 'fill')
          throw new Error(`${key} is sent as ${kind}`);
        // A run that was broken up is sent as bytes, never the other way round.
        if (kind === 'reference') expect(latestKind).toBe('reference');
        if (kind === 'bytes') {
          const bytes = pages.subarray(at, at + pageBytes);
          if (!bytes.equals(this.guest.contentOf(block, page + offset, number))) throw new Error(`${key} is wrong`);
          at += pageBytes;
        }
        versions.push(number);
        this.arrived.set(key, number);
        carried.set(key, number);
        if (kind !== 'reference') this.placed.set(key, number);
      }
      if (kind === 'reference') references.push({ record: index, block, page, versions });
    });
    expect(sent).toMatchObject({
      fillPages: counts.fill,
      bytesPages: counts.bytes,
      referencePages: counts.reference,
    });
    this.#underWay.push({ token: sent.token, references, carried });
  }

  /** Settles any batch. @param isOnDisk - whether its references are found there, or asked for */
  acknowledge(index: number, isOnDisk: boolean): void {
    const [batch] = this.#underWay.splice(index % this.#underWay.length, 1);
    const { store } = this.guest;
    for (const { record, block, page, versions } of batch!.references) {
      if (!isOnDisk) {
        const run = store.bytesOf(batch!.token, record);
        expect(run).toMatchObject({ block, page, count: versions.length });
        const expected = Buffer.concat(versions.map((version, at) => this.guest.contentOf(block, page + at, version)));
        expect(run!.bytes.equals(expected)).toBe(true);
        expect(store.bytesOf(batch!.token, record)).toBeNull();
      }
      versions.forEach((version, at) => {
        const key = `${block}:${page + at}`;
        if (this.arrived.get(key) === version) this.placed.set(key, version);
      });
    }
    expect(store.acknowledged(batch!.token)).toBe(true);
    expect(store.acknowledged(batch!.token)).toBe(false);
  }

  /** Has dropped what a batch brought. */
  giveBack(index: number): void {
    const [batch] = this.#underWay.splice(index % this.#underWay.length, 1);
    for (const [key, version] of batch!.carried) {
      if (this.arrived.get(key) !== version) continue;
      this.arrived.delete(key);
      this.placed.delete(key);
      this.#sent.delete(`${key} ${version}`);
    }
    expect(this.guest.store.givenBack(batch!.token)).toBe(true);
    expect(this.guest.store.givenBack(batch!.token)).toBe(false);
  }

  /** The relay has ended: what it had not placed is lost, and zero pages are never placed. */
  restart(): void {
    for (const [key, version] of this.guest.latest) {
      const isZero = version.kind === 'fill' && version.fill === 0;
      if (!isZero && this.placed.get(key) === version.number) {
        // It is in place: what it was filled with is not remembered, and the same fill is a new version.
        this.guest.latest.set(key, { ...version, kind: 'bytes' });
        continue;
      }
      this.placed.delete(key);
      this.#sent.delete(`${key} ${version.number}`);
    }
    const tokens = this.#underWay.map(({ token }) => token);
    this.#underWay = [];
    this.guest.store.resync((block, page) => this.placed.has(`${block}:${page}`));
    for (const token of tokens) expect(this.guest.store.acknowledged(token)).toBe(false);
    this.arrived.clear();
    for (const [key, version] of this.placed) this.arrived.set(key, version);
  }

  /** Takes and settles all there is. */
  drain(builder: BatchBuilder, isOnDisk = true): void {
    for (let sent = this.guest.store.fillBatch(builder, 512); sent !== null; ) {
      this.receive(sent, builder);
      sent = this.guest.store.fillBatch(builder, 512);
    }
    // Later ones first, to be sure that order does not matter.
    while (this.underWay > 0) this.acknowledge(this.underWay - 1, isOnDisk);
  }

  expectLatest(): void {
    for (const [key, { number }] of this.guest.latest) expect(this.placed.get(key), key).toBe(number);
  }
}

export function expectEmpty(store: PageStore): void {
  expect(store.isEmpty).toBe(true);
  expect(store.remaining).toEqual({ fill: 0, bytes: 0, reference: 0 });
  expect([store.heldBytes, store.compressedBytes, store.spilledBytes]).toEqual([0, 0, 0]);
  expect(store.isFull).toBe(false);
}
