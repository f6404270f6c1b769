/**
 * A look at a few pages here and there in a running guest's memory: what all of it holds follows within a few percent. What
 * its host has pages for says less: in transparent huge pages most may still be zero.
 */
import { crc32 } from 'node:zlib';
import type { GpaRange } from './gpaMap.js';

const pageBytes = 4096;
/** Looked at together: what a page costs depends on its neighbours, with which it is compressed. */
export const runPages = 4;
/** One page in 64. */
const leastStridePages = 64 * runPages;
/** Of memory however large: what it takes to look at so many is less than a tenth of a second. */
const maxRuns = 512;

/** A short run of pages, and how much of the guest's memory it stands for. */
export interface SampledRun {
  readonly gpa: number;
  /** The RAM block's name, as in the migration stream. */
  readonly block: string;
  /** Of the run's first, in its block. */
  readonly page: number;
  readonly pages: number;
  /** Pages of memory for each page of the run. */
  readonly weight: number;
}

export interface RunContents {
  /** Pages that are not zero. */
  readonly pages: number;
  /** What those take when they are sent. */
  readonly bytes: number;
  /** Of each page, another one when it has been written to. */
  readonly marks: readonly number[];
}

/** Where guest physical memory can be read. */
export interface ReadableMemory {
  /** Fills the buffer. @returns whether all of it is memory */
  load(gpa: number, into: Buffer): Promise<boolean>;
}

/**
 * One run somewhere in each stretch of equal length. Not always at the same place: what a guest keeps at the beginning of a
 * huge page is not what it keeps at its end.
 *
 * @param random - from 0 to below 1
 */
export function runsToLookAt(gpaMap: readonly GpaRange[], random: () => number = Math.random): SampledRun[] {
  const totalPages = gpaMap.reduce((sum, { lengthBytes }) => sum + Math.floor(lengthBytes / pageBytes), 0);
  const stridePages = Math.max(leastStridePages, Math.ceil(totalPages / maxRuns));
  const runs: SampledRun[] = [];
  for (const { gpaStart, lengthBytes, block, blockOffset } of gpaMap) {
    const rangePages = Math.floor(lengthBytes / pageBytes);
    for (let first = 0; first < rangePages; first += stridePages) {
      const stretchPages = Math.min(stridePages, rangePages - first);
      const pages = Math.min(runPages, stretchPages);
      const at = first + Math.floor(random() * (stretchPages - pages + 1));
      runs.push({
        gpa: gpaStart + at * pageBytes,
        block,
        page: Math.floor(blockOffset / pageBytes) + at,
        pages,
        weight: stretchPages / pages,
      });
    }
  }
  return runs;
}

/**
 * @param sentBytes - what pages take when they are sent together
 * @returns null for what cannot be read
 */
export async function lookAt(
  memory: ReadableMemory,
  { gpa, pages }: SampledRun,
  sentBytes: (pages: Buffer) => number,
): Promise<RunContents | null> {
  const run = Buffer.allocUnsafe(pages * pageBytes);
  if (!(await memory.load(gpa, run))) return null;
  const marks: number[] = [];
  let kept = 0;
  for (let at = 0; at < run.length; at += pageBytes) {
    marks.push(crc32(run.subarray(at, at + pageBytes)));
    if (isZero(run, at)) continue;
    run.copyWithin(kept * pageBytes, at, at + pageBytes);
    kept++;
  }
  return { pages: kept, bytes: kept === 0 ? 0 : sentBytes(run.subarray(0, kept * pageBytes)), marks };
}

const zeroPage = Buffer.alloc(pageBytes);

function isZero(run: Buffer, at: number): boolean {
  return run.compare(zeroPage, 0, pageBytes, at, at + pageBytes) === 0;
}
