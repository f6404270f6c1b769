/**
 * The truth about a cache map: the bytes of the guest's RAM against the bytes of its disks, while the guest stands still.
 * Nothing of the agent or the guest is asked.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { expect } from 'vitest';
import type { ScanResult } from '../../guest-agent/client.js';
import type { QmpClient } from '../../qmp/index.js';
import { PageSet } from './pageSet.js';

const PAGE_BYTES = 4096;
const CHUNK_BYTES = 1024 * 1024;

export interface Verdict {
  /** Pages in the map. */
  pages: number;
  /** Those whose bytes in RAM are not those on disk: `serial@offset`, and what the disk has there. */
  wrong: { place: string; onDisk: PageSet }[];
  /** The pages that are right. */
  found: PageSet;
  /** How often each page that is right was found. */
  timesFound: Map<bigint, number>;
  /** All pages in RAM. */
  ram: PageSet;
}

/** The guest's memory file, and its disks by serial. */
export interface Evidence {
  ramPath: string;
  diskPaths: Record<string, string>;
}

/** Compares every page of a map; the guest is stopped meanwhile. RAM has to be below the PCI hole. */
export async function judge(scan: ScanResult, evidence: Evidence, qmp: QmpClient): Promise<Verdict> {
  await qmp.execute('stop');
  const files: FileHandle[] = [];
  const openFile = async (path: string) => {
    const file = await open(path, 'r');
    files.push(file);
    return file;
  };
  try {
    const ram = await openFile(evidence.ramPath);
    const disks: FileHandle[] = [];
    for (const { serial } of scan.disks) disks.push(await openFile(evidence.diskPaths[serial]!));
    const verdict: Verdict = {
      pages: 0,
      wrong: [],
      found: new PageSet(),
      timesFound: new Map<bigint, number>(),
      ram: await readPages(ram),
    };
    for (let i = 0; i < scan.runs.count; i++) await judgeRun(scan, i, ram, disks, verdict);
    return verdict;
  } finally {
    for (const file of files) await file.close();
    await qmp.execute('cont');
  }
}

/**
 * Expects that a map is right about all pages of files. A few pages of metadata may be newer in RAM than on disk: while a
 * change waits in ext4's journal, the kernel does not show the page as dirty.
 */
export function expectRight(verdict: Verdict, files: PageSet): void {
  const places = verdict.wrong.map(({ place }) => place);
  expect(verdict.wrong.filter(({ onDisk }) => onDisk.countIn(files) > 0).map(({ place }) => place)).toEqual([]);
  expect(places.length, places.join(' ')).toBeLessThanOrEqual(Math.max(16, verdict.pages / 1000));
}

async function judgeRun(
  scan: ScanResult,
  index: number,
  ram: FileHandle,
  disks: FileHandle[],
  verdict: Verdict,
): Promise<void> {
  const { runs } = scan;
  const lengthBytes = runs.pageCount[index]! * PAGE_BYTES;
  const inRam = await read(ram, runs.pfn[index]! * PAGE_BYTES, lengthBytes);
  const onDisk = await read(disks[runs.disk[index]!]!, runs.diskOffsetBytes[index]!, lengthBytes);
  for (let at = 0; at < lengthBytes; at += PAGE_BYTES) {
    const page = inRam.subarray(at, at + PAGE_BYTES);
    verdict.pages++;
    const one = new PageSet();
    one.add(onDisk.subarray(at, at + PAGE_BYTES));
    if (!page.equals(onDisk.subarray(at, at + PAGE_BYTES))) {
      const place = `${scan.disks[runs.disk[index]!]!.serial}@${runs.diskOffsetBytes[index]! + at}`;
      verdict.wrong.push({ place, onDisk: one });
      continue;
    }
    for (const digest of one.digests) {
      verdict.found.digests.add(digest);
      verdict.timesFound.set(digest, (verdict.timesFound.get(digest) ?? 0) + 1);
    }
  }
}

async function read(file: FileHandle, position: number, lengthBytes: number): Promise<Buffer> {
  const { bytesRead, buffer } = await file.read(Buffer.alloc(lengthBytes), 0, lengthBytes, position);
  return buffer.subarray(0, bytesRead);
}

/** All pages of a file. */
export async function readPages(file: FileHandle): Promise<PageSet> {
  const pages = new PageSet();
  const { size } = await file.stat();
  for (let at = 0; at < size; at += CHUNK_BYTES) pages.addAll(await read(file, at, Math.min(CHUNK_BYTES, size - at)));
  return pages;
}
