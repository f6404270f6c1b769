/**
 * Whether this host has processors to spare. What is put back from its disks while the guest still runs elsewhere makes the
 * guest's first moments here shorter; that is worth no other guest's time. On a busy host some of it is done all the same:
 * who waits for the end of it has to see one.
 */
import { readFileSync } from 'node:fs';

const intervalMs = 100;
/** What the kernel counts by (USER_HZ). */
const tickMs = 10;
/** Of a processor, beside what others use; for so many intervals. */
const wantedShare = 0.75;
const spareIntervals = 3;
/** In each interval, on a busy host: some 3 % of a processor. */
const leastBytes = 1024 * 1024;

export class SpareProcessors implements Disposable {
  readonly #timer: NodeJS.Timeout;
  #before = look();
  /** Intervals in which there was as much, one after the other. */
  #spareIntervals = 0;
  #leastBytes = leastBytes;

  /** @param changed - there may be room for work again */
  constructor(changed: () => void) {
    this.#timer = setInterval(() => {
      const now = look();
      const isSpare = now === null || this.#before === null || spareShare(this.#before, now) >= wantedShare;
      this.#spareIntervals = isSpare ? this.#spareIntervals + 1 : 0;
      this.#before = now;
      this.#leastBytes = leastBytes;
      changed();
    }, intervalMs);
    this.#timer.unref();
  }

  get mayWork(): boolean {
    return this.#spareIntervals >= spareIntervals || this.#leastBytes > 0;
  }

  worked(bytes: number): void {
    this.#leastBytes -= bytes;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

/** Processor time of the host until now, and this process's part of it. */
export interface ProcessorTime {
  readonly atMs: number;
  readonly processors: number;
  readonly busyMs: number;
  readonly ownMs: number;
}

/** Processors that others have left between two looks. */
export function spareShare(before: ProcessorTime, now: ProcessorTime): number {
  const othersMs = now.busyMs - before.busyMs - (now.ownMs - before.ownMs);
  return now.processors - Math.max(0, othersMs) / Math.max(1, now.atMs - before.atMs);
}

/** @returns null where the kernel does not tell */
function look(): ProcessorTime | null {
  const { user, system } = process.cpuUsage();
  const own = { atMs: performance.now(), ownMs: (user + system) / 1000 };
  try {
    return { ...own, ...parse(readFileSync('/proc/stat', 'utf8')) };
  } catch {
    return null;
  }
}

/** `cpu  user nice system idle iowait irq softirq steal guest guest_nice` and the same of each (proc_stat(5)); guests are users, too. */
function parse(stat: string): Pick<ProcessorTime, 'busyMs' | 'processors'> {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] =
    /^cpu +(.*)$/m.exec(stat)?.[1]?.split(' ').map(Number) ?? [];
  const busyMs = (user + nice + system + irq + softirq + steal) * tickMs;
  return { busyMs, processors: stat.match(/^cpu\d/gm)?.length ?? 1 };
}
