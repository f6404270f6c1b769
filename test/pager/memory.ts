/** Memory files of guests that need no QEMU: their pages are written by the tests. */

import { writeSync } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Digester, type FileBlock, MemoryFile } from '../../pager/index.js';
import { RunDigester } from '../../relay/digest.js';

export const pageBytes = 4096;
export const digester: Digester = new RunDigester(Buffer.alloc(32, 7));

/** A page's bytes in some version; version 0 is zero. */
export function pageOf(page: number, version: number): Buffer {
  const bytes = Buffer.alloc(pageBytes);
  if (version > 0) for (let at = 0; at < pageBytes; at += 8) bytes.writeUInt32LE((page * 65537 + version) >>> 0, at);
  return bytes;
}

/** Guest memory in files, one for each block; disposing removes them. */
export class TestMemory implements AsyncDisposable {
  private constructor(
    private readonly directory: string,
    private readonly handles: readonly (AsyncDisposable & { readonly fd: number })[],
    readonly blocks: readonly (FileBlock & { readonly file: MemoryFile })[],
  ) {}

  /** @param pagesOfBlock by the block's place among the guest's; null for a block that is in no file */
  static async create(pagesOfBlock: readonly (number | null)[]): Promise<TestMemory> {
    const directory = await mkdtemp('/dev/shm/vmmig-pager-');
    const handles: (AsyncDisposable & { readonly fd: number })[] = [];
    const blocks: (FileBlock & { readonly file: MemoryFile })[] = [];
    for (const [block, pages] of pagesOfBlock.entries()) {
      if (pages === null) continue;
      const path = join(directory, `ram${block}`);
      const handle = await open(path, 'w+');
      const fileOffset = block * pageBytes;
      await handle.truncate(fileOffset + pages * pageBytes);
      handles.push(handle);
      blocks.push({ block, lengthBytes: pages * pageBytes, file: await MemoryFile.open(path), fileOffset });
    }
    return new TestMemory(directory, handles, blocks);
  }

  write(block: number, page: number, bytes: Buffer): void {
    const at = this.blocks.findIndex((one) => one.block === block);
    writeSync(this.handles[at]!.fd, bytes, 0, bytes.length, this.blocks[at]!.fileOffset + page * pageBytes);
  }

  read(block: number, page: number): Buffer {
    const { file, fileOffset } = this.blocks.find((one) => one.block === block)!;
    const bytes = Buffer.alloc(pageBytes);
    file.read(fileOffset + page * pageBytes, pageBytes, bytes);
    return bytes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { file } of this.blocks) await file[Symbol.asyncDispose]();
    for (const handle of this.handles) await handle[Symbol.asyncDispose]();
    await rm(this.directory, { recursive: true, force: true });
  }
}
