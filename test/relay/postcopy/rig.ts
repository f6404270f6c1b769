/** A post-copy stream into a QEMU by the book. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll } from 'vitest';
import type { PageRun } from '../../../relay/destination/postcopy/blockPages.js';
import { PostcopyStream } from '../../../relay/destination/postcopy/postcopyStream.js';
import { encodeConfiguration, type RamBlock } from '../../../stream/index.js';
import { FakeQemu } from './fakeQemu.js';

const directory = await mkdtemp(join(tmpdir(), 'vmmig-postcopy-'));
afterAll(() => rm(directory, { recursive: true, force: true }));

export const header = Buffer.from('QEVM\0\0\0\x03');
const head = Buffer.concat([header, encodeConfiguration('pc-q35-7.2')]);
export const ramSection = { id: 2, version: 4 };
export const devices = Buffer.from('device sections');

export function block(index: number, name: string, pages: number, hostPage = 1): RamBlock {
  return { index, name, lengthBytes: pages * 4096, pageSizeBytes: hostPage * 4096, gpa: null };
}

/** Pages with numbers in them, one after the other. */
export function pagesOf(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4096);
  for (const [at, value] of values.entries()) bytes.writeUInt32LE(value, at * 4096);
  return bytes;
}

let paths = 0;

/** For a socket. */
export function nextPath(): string {
  return join(directory, String(paths++));
}

export class Rig implements AsyncDisposable {
  readonly faults: PageRun[] = [];
  readonly lost: Error[] = [];
  qemu!: FakeQemu;
  stream!: PostcopyStream;
  onFault: (run: PageRun) => void = () => {};

  static async begin(
    blocks: RamBlock[],
    options: { collectorBytes?: number; head?: Buffer; mayPreempt?: boolean } = {},
  ): Promise<Rig> {
    const rig = new Rig();
    const path = nextPath();
    rig.qemu = await FakeQemu.listen(path);
    const handlers = {
      fault: (run: PageRun) => {
        rig.faults.push(run);
        rig.onFault(run);
      },
      lost: (error: Error) => void rig.lost.push(error),
    };
    rig.stream = await PostcopyStream.connect(path, handlers, options);
    rig.stream.begin({ head: options.head ?? head, ramSection, blocks });
    return rig;
  }

  /** Everything that was placed so far has arrived. */
  async arrived(pages: number): Promise<void> {
    await this.until(() => this.pagesAfter.length >= pages);
  }

  get pagesAfter(): string[] {
    return this.qemu.came.filter((each) => /:\d+$/.test(each));
  }

  async until(holds: () => boolean): Promise<void> {
    for (let tries = 0; !holds(); tries++) {
      if (tries > 2000) throw new Error(`it never happened; QEMU got: ${this.qemu.came.slice(-20).join(', ')}`);
      await sleep(1);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stream[Symbol.asyncDispose]();
    await this.qemu[Symbol.asyncDispose]();
  }
}
