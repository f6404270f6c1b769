/** How much memory vmmig's services on both hosts have had, as the kernel counts it. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { hostNames } from '../../lab/index.js';
import { find } from './hostProcesses.js';

const pollMs = 100;
const bytesOfKibibyte = 1024;

/** Runs something, and resolves with the most that each service has had resident meanwhile, in bytes. */
export async function peaksDuring(work: () => Promise<unknown>): Promise<number[]> {
  const peaks = new Map<number, number>();
  let isOver = false;
  const watching = (async () => {
    for (; !isOver; await sleep(pollMs))
      for (const pid of hostNames.flatMap((host) => find(host, /^\S*node .*\bhost-service$/))) {
        const peak = peakBytes(pid);
        if (peak !== null) peaks.set(pid, peak);
      }
  })();
  try {
    await work();
  } finally {
    isOver = true;
    await watching;
  }
  return [...peaks.values()];
}

function peakBytes(pid: number): number | null {
  try {
    const kibibytes = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    return kibibytes === undefined ? null : Number(kibibytes) * bytesOfKibibyte;
  } catch {
    return null; // It has ended.
  }
}

const fixedBytes = 256 * 2 ** 20;
/** A digest for each page. */
const shareOfMemory = 0.004;

/** What each relay may have at most, of a guest with so much memory. */
export function residentLimitBytes(memoryMiB: number): number {
  return fixedBytes + memoryMiB * 2 ** 20 * shareOfMemory;
}
