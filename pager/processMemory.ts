/**
 * Memory of a running process, by its addresses there: how a guest's is read that is in no file. The process goes on
 * meanwhile, so that what is read may be torn. (proc_pid_mem(5), proc_pid_pagemap(5))
 */
import { readSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { PagerError } from './errors.js';
import type { FileRun, MemorySource } from './memorySource.js';
import { pageBytes } from './pageGroups.js';

const entryBytes = 8;
/** Of the entry's last byte: the page is present, or swapped out. Others have never been written to. */
const isThere = 0b1100_0000;
const entriesAtOnce = 16 * 1024;

export class ProcessMemory implements MemorySource, AsyncDisposable {
  readonly #memory: FileHandle;
  readonly #pagemap: FileHandle;

  private constructor(memory: FileHandle, pagemap: FileHandle) {
    this.#memory = memory;
    this.#pagemap = pagemap;
  }

  /** @throws PagerError VMMIG_MEMORY_FILE_OPEN when it is not this user's to look at */
  static async open(pid: number): Promise<ProcessMemory> {
    try {
      const memory = await open(`/proc/${pid}/mem`, 'r');
      try {
        return new ProcessMemory(memory, await open(`/proc/${pid}/pagemap`, 'r'));
      } catch (error) {
        await memory.close();
        throw error;
      }
    } catch (cause) {
      const message = `cannot look at the memory of process ${pid}: ${(cause as Error).message}`;
      throw new PagerError('VMMIG_MEMORY_FILE_OPEN', message, { cause });
    }
  }

  read(address: number, lengthBytes: number, into: Buffer, start = 0): void {
    let found = 0;
    try {
      found = readSync(this.#memory.fd, into, start, lengthBytes, address);
    } catch (cause) {
      throw new PagerError('VMMIG_MEMORY_FILE_READ', `cannot read memory: ${(cause as Error).message}`, { cause });
    }
    if (found < lengthBytes) throw new PagerError('VMMIG_MEMORY_FILE_READ', 'cannot read memory: it is not there');
  }

  /** Some 10 ms for each GiB, on another thread. */
  async *dataRuns(address: number, lengthBytes: number, signal?: AbortSignal): AsyncGenerator<FileRun> {
    const entries = Buffer.allocUnsafe(entriesAtOnce * entryBytes);
    const end = address + lengthBytes;
    let start = -1;
    let at = address;
    while (at < end) {
      signal?.throwIfAborted();
      const wanted = Math.min(entriesAtOnce, (end - at) / pageBytes) * entryBytes;
      const { bytesRead } = await this.#pagemap.read(entries, 0, wanted, (at / pageBytes) * entryBytes);
      if (bytesRead === 0) break;
      for (let last = entryBytes - 1; last < bytesRead; last += entryBytes, at += pageBytes) {
        const hasData = (entries[last]! & isThere) !== 0;
        if (hasData && start < 0) start = at;
        if (hasData || start < 0) continue;
        yield { offset: start, lengthBytes: at - start };
        start = -1;
      }
    }
    if (start >= 0) yield { offset: start, lengthBytes: at - start };
  }

  nextData(address: number): number {
    return address;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#memory.close(), this.#pagemap.close()]);
  }
}
