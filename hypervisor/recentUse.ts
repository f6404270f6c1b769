/**
 * Which pages of its memory a guest has used lately, read or written, where that is a file in memory (tmpfs, memfd) and
 * this host has no swap. The kernel is asked to take them out of QEMU's page tables (process_madvise(2), MADV_PAGEOUT). It
 * does so before it finds that it has nowhere to put them, and keeps them. What the guest then uses comes back by itself
 * within microseconds, and /proc/PID/pagemap tells what is there: mostly together with its neighbours in 64 KiB. An
 * emulated processor uses code only when it translates it.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import koffi from 'koffi';

/** In QEMU's address space; whole pages. */
export interface MappedStretch {
  readonly address: number;
  readonly lengthBytes: number;
}

const libc = koffi.load(null);
const processMadvise = promisify(
  libc.func(
    'int64_t syscall(int64_t number, int64_t pidfd, uint8_t *vector, int64_t count, int64_t advice, int64_t flags)',
  ).async,
) as (number: number, pidfd: number, vector: Buffer, count: number, advice: number, flags: number) => Promise<number>;
const pidfdOpen = libc.func('int64_t syscall(int64_t number, int64_t pid, int64_t flags)');

/** The same on all processors. */
const systemCall = { pidfdOpen: 434, processMadvise: 440 } as const;
const MADV_PAGEOUT = 21;
const pageBytes = 4096;
/** UIO_MAXIOV; short calls keep the guest from waiting for the locks that they hold. */
const maxStretches = 64;
const maxCallBytes = 2 * 2 ** 20;
const vectorBytes = 16;
const entryBytes = 8;
const presentByte = 7;
const presentBit = 0x80;

export class RecentUse implements Disposable {
  readonly #pagemap: number;
  readonly #stretches: readonly MappedStretch[];

  private constructor(pagemap: number, stretches: readonly MappedStretch[]) {
    this.#pagemap = pagemap;
    this.#stretches = stretches;
  }

  /**
   * Begins to watch these stretches of QEMU's memory, which are files in memory. Some 10 ms for 1000 pages, on another
   * thread.
   *
   * @returns null where that cannot be done
   */
  static async watch(
    pid: number,
    stretches: readonly MappedStretch[],
    signal?: AbortSignal,
  ): Promise<RecentUse | null> {
    if ((await hasSwap()) || (await hasHugePages(pid))) return null;
    const pidfd = Number(pidfdOpen(systemCall.pidfdOpen, pid, 0));
    if (pidfd < 0) return null;
    try {
      for (const { vector, count, lengthBytes } of calls(stretches)) {
        if (signal?.aborted) return null;
        const done = await processMadvise(systemCall.processMadvise, pidfd, vector, count, MADV_PAGEOUT, 0);
        if (Number(done) !== lengthBytes) return null;
      }
      return new RecentUse(openSync(`/proc/${pid}/pagemap`, 'r'), stretches);
    } catch {
      return null;
    } finally {
      closeSync(pidfd);
    }
  }

  /** For each stretch, one byte a page: whether it has been used since. */
  used(): Uint8Array[] {
    return this.#stretches.map(({ address, lengthBytes }) => {
      const pages = lengthBytes / pageBytes;
      const entries = Buffer.alloc(pages * entryBytes);
      readSync(this.#pagemap, entries, 0, entries.length, (address / pageBytes) * entryBytes);
      return Uint8Array.from({ length: pages }, (_, page) =>
        (entries[page * entryBytes + presentByte]! & presentBit) === 0 ? 0 : 1,
      );
    });
  }

  [Symbol.dispose](): void {
    closeSync(this.#pagemap);
  }
}

/** With swap, pages would go there. */
async function hasSwap(): Promise<boolean> {
  const text = await readFile('/proc/swaps', 'utf8').catch(() => 'not known\nnot known');
  return text.trim().split('\n').length > 1;
}

/** They would be broken up. */
async function hasHugePages(pid: number): Promise<boolean> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '');
  return !/^ShmemPmdMapped: +0 kB$/m.test(text);
}

function* calls(
  stretches: readonly MappedStretch[],
): Generator<{ vector: Buffer; count: number; lengthBytes: number }> {
  for (let at = 0; at < stretches.length; ) {
    const vector = Buffer.alloc(maxStretches * vectorBytes);
    let count = 0;
    let lengthBytes = 0;
    for (; at < stretches.length && count < maxStretches && lengthBytes < maxCallBytes; at++, count++) {
      vector.writeBigUInt64LE(BigInt(stretches[at]!.address), count * vectorBytes);
      vector.writeBigUInt64LE(BigInt(stretches[at]!.lengthBytes), count * vectorBytes + entryBytes);
      lengthBytes += stretches[at]!.lengthBytes;
    }
    yield { vector, count, lengthBytes };
  }
}
