/** Real guests: one that is captured by a pre-copy, and the QEMUs that it is resumed on. */
import { readFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  GuestShell,
  type QemuVersion,
  type RunningGuest,
  startTinyGuest,
  type TinyGuestLaunch,
  waitForBoot,
} from '../../../lab/index.js';
import { type MigrationCapability, QmpClient, QmpCommandError } from '../../../qmp/index.js';
import type { RamSection } from '../../../relay/destination/postcopy/commands.js';
import type { FaultAnswer } from '../../../relay/destination/postcopy/faults.js';
import type { PostcopyStream } from '../../../relay/destination/postcopy/postcopyStream.js';
import { type RamBlock, StreamDecoder, splitTail } from '../../../stream/index.js';

export const pageBytes = 4096;

export interface CapturedGuest {
  readonly head: Buffer;
  readonly ramSection: RamSection;
  readonly blocks: readonly RamBlock[];
  /** Of each block. */
  readonly memory: readonly Buffer[];
  readonly devices: Buffer;
  /** What the guest's counter had reached before. */
  readonly counter: number;
}

export interface Resumable extends AsyncDisposable {
  readonly guest: RunningGuest;
  readonly qmp: QmpClient;
  readonly socketPath: string;
}

export const memoryMiB = 256;
/** Name of the block of the guest's memory. */
export const ramName = 'ram0';
/** Of a pattern that is written and verified all the time. */
const patternMiB = 16;

/** Boots a guest with a pattern in its memory, stops it and takes its pre-copy. */
export async function captureGuest(version: QemuVersion, dir: string): Promise<CapturedGuest> {
  const extraArgs = memoryArguments();
  await using guest = await startTinyGuest({ dir, name: `source-${version}`, qemu: version, extraArgs });
  await using shell = await waitForBoot(guest.shellPath);
  await shell.output(`pattern start ${patternMiB}`);
  await shell.output('ticker start');
  while (!/^passes [1-9]/.test(await shell.output('pattern status || true'))) await sleep(100);
  const counter = Number(await shell.output('count'));
  await using qmp = await QmpClient.connect({ path: guest.qmpPath });
  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 });
  await qmp.execute('stop');
  return { ...(await takeStream(qmp, join(dir, `capture-${version}`))), counter };
}

async function takeStream(qmp: QmpClient, path: string): Promise<Omit<CapturedGuest, 'counter'>> {
  const sockets: Socket[] = [];
  const ended = new Promise<Omit<CapturedGuest, 'counter'>>((resolve, reject) => {
    const server = createServer((socket) => {
      sockets.push(socket);
      server.close();
      let captured: Omit<CapturedGuest, 'counter' | 'devices'> | undefined;
      let head = Buffer.alloc(0);
      let ramSection: RamSection = { id: 0, version: 0 };
      let memory: Buffer[] = [];
      const tail: Buffer[] = [];
      const decoder = new StreamDecoder({
        configuration: (raw) => {
          head = Buffer.concat([Buffer.from('QEVM'), Buffer.from([0, 0, 0, 3]), raw]);
        },
        sectionStart: ({ id, version }) => {
          ramSection = { id, version };
        },
        ramBlocks: (blocks) => {
          memory = blocks.map(({ lengthBytes }) => Buffer.alloc(lengthBytes));
          captured = { head, ramSection, blocks, memory };
        },
        page: (block, page, source, start) => {
          source.copy(memory[block.index]!, page * pageBytes, start, start + pageBytes);
        },
        zeroPage: (block, page, fill) => {
          memory[block.index]!.fill(fill, page * pageBytes, (page + 1) * pageBytes);
        },
        tail: (bytes) => void tail.push(Buffer.from(bytes)),
        end: () => resolve({ ...captured!, devices: splitTail(Buffer.concat(tail)).deviceState }),
      });
      socket.on('data', (chunk) => decoder.feed(chunk));
      socket.on('end', () => decoder.end());
      socket.on('error', reject);
    });
    server.listen(path);
  });
  try {
    await qmp.execute('migrate', { uri: `unix:${path}` });
    return await ended;
  } finally {
    for (const socket of sockets) socket.destroy();
  }
}

/**
 * Memory of a size that huge pages can back, under a name of its own.
 *
 * @param memory the object that provides it, if it is not to be plain memory
 */
export function memoryArguments(memory: readonly string[] = []): string[] {
  const plain = ['-object', `memory-backend-ram,id=${ramName},size=${memoryMiB}M`];
  return ['-m', `${memoryMiB}M`, ...(memory.length > 0 ? memory : plain), '-machine', `memory-backend=${ramName}`];
}

/** Of 2 MiB, that this machine can back memory with. */
export function freeHugePages(): number {
  return Number(/HugePages_Free:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'latin1'))?.[1] ?? 0);
}

/** A QEMU that waits, paused, for a post-copy on a socket. */
export async function startResumable(
  version: QemuVersion,
  dir: string,
  name: string,
  memory: readonly string[] = [],
  more: readonly MigrationCapability[] = [],
): Promise<Resumable> {
  return await startWaiting({ dir, name, qemu: version, extraArgs: memoryArguments(memory) }, more);
}

/** The same, with memory as the launch has it. */
export async function startWaiting(
  { extraArgs = [], ...launch }: TinyGuestLaunch,
  more: readonly MigrationCapability[] = [],
): Promise<Resumable> {
  const guest = await startTinyGuest({ ...launch, incoming: 'defer', extraArgs: ['-S', ...extraArgs] });
  try {
    const qmp = await QmpClient.connect({ path: guest.qmpPath });
    const wanted: MigrationCapability[] = ['postcopy-ram', 'return-path', 'events', 'late-block-activate'];
    const capabilities = [...wanted, ...more].map((capability) => ({ capability, state: true }));
    await qmp.execute('migrate-set-capabilities', { capabilities });
    const socketPath = join(launch.dir, `${launch.name}.incoming`);
    await qmp.execute('migrate-incoming', { uri: `unix:${socketPath}` });
    return {
      ...{ guest, qmp, socketPath },
      async [Symbol.asyncDispose]() {
        await qmp.close();
        await guest[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await guest[Symbol.asyncDispose]();
    throw error;
  }
}

/** What the service does at the commit point: lets the guest run as soon as QEMU has its device state. */
export async function letRun({ qmp }: Resumable): Promise<void> {
  while ((await qmp.execute('query-status')).status === 'inmigrate') await sleep(2);
  await qmp.execute('cont');
}

/**
 * Makes QEMU listen for another stream once it has noticed that one is broken. Out of band, because QEMU's main loop may
 * be waiting for a page itself; then it answers nothing else, and accepts no connection either.
 */
export async function recover({ qmp }: Resumable, path: string): Promise<void> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    try {
      await qmp.execute('migrate-recover', { uri: `unix:${path}` }, { oob: true });
      return;
    } catch (error) {
      if (!(error instanceof QmpCommandError) || Date.now() > deadline) throw error;
      await sleep(5);
    }
  }
}

export async function migrationStatus({ qmp }: Resumable, wanted: string): Promise<void> {
  const deadline = Date.now() + 20_000;
  for (;;) {
    const { status } = await qmp.execute('query-migrate');
    if (status === wanted) return;
    if (Date.now() > deadline) throw new Error(`the migration is ${status}, not ${wanted}`);
    await sleep(5);
  }
}

export interface Health {
  readonly counter: number;
  readonly passes: number;
  readonly errors: number;
  readonly longestGapMs: number;
}

/** Asks the guest, once it has verified its pattern again. */
export async function health({ guest }: Resumable, passes = 1): Promise<Health> {
  await using shell = await GuestShell.connect(guest.shellPath);
  const numbers = async (command: string) => (await shell.output(command)).match(/\d+/g)!.map(Number);
  const [first] = await numbers('pattern status');
  for (;;) {
    const [now, errors] = await numbers('pattern status');
    if (now! > first! + passes) {
      const [, longestUs] = await numbers('ticker status');
      const [counter] = await numbers('count');
      return { counter: counter!, passes: now!, errors: errors!, longestGapMs: longestUs! / 1000 };
    }
    await sleep(100);
  }
}

function isZero(memory: Buffer, page: number): boolean {
  return zeroPage.compare(memory, page * pageBytes, (page + 1) * pageBytes) === 0;
}

const zeroPage = Buffer.alloc(pageBytes);

/** Gives the stream what the captured guest had in a run of pages. */
export function give(
  stream: PostcopyStream,
  { memory }: CapturedGuest,
  block: number,
  page: number,
  count: number,
  answer: FaultAnswer = 'remote',
): void {
  const bytes = memory[block]!;
  for (let at = page; at < page + count; at++) {
    if (isZero(bytes, at)) stream.zero(block, at, 1);
    else stream.place(block, at, 1, bytes, at * pageBytes, answer);
  }
}
