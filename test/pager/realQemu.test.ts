import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdtemp, readFile, rm, unlink } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { memoryBackends } from '../../hypervisor/index.js';
import { buildTinyGuest, type QemuVersion, type RunningGuest, startTinyGuest, waitForBoot } from '../../lab/index.js';
import { FileCapture, headForPostcopy, MemoryFile } from '../../pager/index.js';
import { QmpClient } from '../../qmp/index.js';
import { type RamBlock, StreamDecoder, StreamEncoder } from '../../stream/index.js';
import { TestDestination } from './destination.js';
import { digester, pageBytes } from './memory.js';

const MiB = 1024 ** 2;
const memoryMiB = 192;
const hintLimitBytes = 512 * MiB;
let directory: string;

beforeEach(async () => {
  directory = await mkdtemp('/dev/shm/vmmig-pager-');
});
afterEach(() => rm(directory, { recursive: true, force: true }));

interface Captured {
  readonly lengthBytes: number;
  readonly configuration: Buffer;
  readonly blocks: readonly RamBlock[];
  readonly section: { id: number; version: number };
  /** By block, pages of which the stream has the bytes or says that they are zero. */
  readonly pages: ReadonlyMap<number, Map<number, Buffer>>;
  readonly tail: Buffer;
}

/** Has QEMU migrate to a socket, with shared memory left out. The guest has stopped then. */
async function captureDevices(qmp: QmpClient): Promise<Captured> {
  const path = join(directory, 'stream');
  const chunks: Buffer[] = [];
  const server = createServer((socket) => {
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('error', () => {});
  });
  await once(server.listen(path), 'listening');
  try {
    await qmp.execute('migrate-set-capabilities', {
      capabilities: [{ capability: 'x-ignore-shared', state: true }],
    });
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 });
    const ended = once(server, 'connection').then(([socket]) => once(socket, 'end'));
    await qmp.execute('migrate', { uri: `unix:${path}` });
    await ended;
    return decode(Buffer.concat(chunks));
  } finally {
    server.close();
  }
}

function decode(stream: Buffer): Captured {
  let configuration = Buffer.alloc(0);
  let blocks: readonly RamBlock[] = [];
  let section = { id: 0, version: 0 };
  const pages = new Map<number, Map<number, Buffer>>();
  const tail: Buffer[] = [];
  const put = (block: RamBlock, page: number, bytes: Buffer) => {
    if (!pages.has(block.index)) pages.set(block.index, new Map());
    pages.get(block.index)!.set(page, bytes);
  };
  const decoder = new StreamDecoder({
    configuration: (raw) => {
      configuration = Buffer.from(raw);
    },
    sectionStart: ({ id, version }) => {
      section = { id, version };
    },
    ramBlocks: (list) => {
      blocks = list;
    },
    page: (block, page, source, start) => put(block, page, Buffer.from(source.subarray(start, start + pageBytes))),
    zeroPage: (block, page, fill) => put(block, page, Buffer.alloc(pageBytes, fill)),
    tail: (bytes) => void tail.push(Buffer.from(bytes)),
  });
  decoder.feed(stream);
  decoder.end();
  return { lengthBytes: stream.length, configuration, blocks, section, pages, tail: Buffer.concat(tail) };
}

/** An ordinary pre-copy stream, with the head that a destination without shared memory gets. */
async function writeStream(path: string, captured: Captured, destination: TestDestination): Promise<void> {
  const { head, blocks } = headForPostcopy(captured, () => 4096);
  const { section, pages, tail } = captured;
  const encoder = new StreamEncoder();
  const file = createWriteStream(path);
  encoder.raw(head);
  encoder.sectionStart('start', section.id, 'ram', 0, section.version);
  encoder.ramBlocks(blocks);
  encoder.eos();
  encoder.footer(section.id);
  encoder.sectionContinue('part', section.id);
  for (const block of blocks) {
    for (let page = 0; page < block.lengthBytes / pageBytes; page++) {
      const bytes = pages.get(block.index)?.get(page) ?? destination.placed.get(`${block.index}/${page}`);
      expect(bytes, `page ${page} of ${block.name}`).toBeDefined();
      encoder.page(block, page, bytes!, 0);
      if (encoder.pendingBytes > MiB && !file.write(encoder.take())) await once(file, 'drain');
    }
  }
  encoder.eos();
  encoder.footer(section.id);
  encoder.sectionContinue('end', section.id);
  encoder.eos();
  encoder.footer(section.id);
  encoder.tail(tail);
  file.end(encoder.take());
  await once(file, 'close');
}

async function load(guest: RunningGuest, path: string): Promise<void> {
  await using qmp = await QmpClient.connect({ path: guest.qmpPath });
  await qmp.execute('migrate-incoming', { uri: `exec:cat ${path}` });
  for (let status = ''; status !== 'completed'; await sleep(20)) {
    const { status: now, 'error-desc': reason } = await qmp.execute('query-migrate');
    if (now === 'failed')
      throw new Error(`the destination refuses: ${reason}\n${await readFile(guest.logPath, 'utf8')}`);
    status = now ?? '';
  }
  await qmp.execute('cont');
}

describe.each(['7.2', '10.0'] as QemuVersion[])('with QEMU %s', (qemu) => {
  test('a guest in a shared memory file is captured without a copy, and goes on elsewhere as it was', {
    timeout: 120_000,
  }, async () => {
    const image = await buildTinyGuest();
    const memoryPath = join(directory, 'vm1.ram');
    const launch = { dir: directory, qemu, image, memoryMiB };
    await using source = await startTinyGuest({ ...launch, name: 'vm1', memoryFile: memoryPath });
    await using shell = await waitForBoot(source.shellPath);
    await shell.output('pattern start 32');
    await using qmp = await QmpClient.connect({ path: source.qmpPath });

    const all = await memoryBackends(qmp, source);
    const backends = all.filter(({ leftOut }) => leftOut);
    expect(backends).toMatchObject([{ block: 'ram0', path: memoryPath, lengthBytes: (memoryMiB * 1024 + 8) * 1024 }]);
    const { lengthBytes, fileOffset } = backends[0]!;
    await using file = await MemoryFile.open(memoryPath);
    await unlink(memoryPath);

    const capture = new FileCapture([{ block: 0, lengthBytes, file, fileOffset }], digester, { hintLimitBytes });
    const pagesOfBlock = [lengthBytes / pageBytes];
    const destination = new TestDestination(capture, pagesOfBlock, hintLimitBytes);
    await capture.survey();
    destination.drain();
    expect(destination.hintedPages).toBeGreaterThan(0);

    const captured = await captureDevices(qmp);
    expect(captured.lengthBytes).toBeLessThan(MiB);
    // What is sent before there is a stream has to name blocks by the place that they will have in it.
    const announced = captured.blocks.map(({ name, lengthBytes }) => ({ block: name, lengthBytes }));
    expect(all.map(({ block, lengthBytes }) => ({ block, lengthBytes }))).toEqual(announced);
    expect(captured.blocks[0]).toMatchObject({ name: 'ram0', lengthBytes, gpa: 0 });
    expect(captured.pages.has(0)).toBe(false);
    for (const { index, lengthBytes } of captured.blocks.slice(1))
      expect(captured.pages.get(index)?.size).toBe(lengthBytes / pageBytes);
    const { status } = await qmp.execute('query-status');
    expect(status).toBe('postmigrate');
    const dump = join(directory, 'dump');
    await qmp.execute('pmemsave', { val: MiB, size: (memoryMiB - 1) * MiB, filename: dump });
    const truth = createHash('sha256')
      .update(await readFile(dump))
      .digest('hex');
    await unlink(dump);
    await qmp.execute('quit').catch(() => {});
    await source.exited;

    const memory = Buffer.alloc((memoryMiB - 1) * MiB);
    file.read(fileOffset + MiB, memory.length, memory);
    expect(createHash('sha256').update(memory).digest('hex')).toBe(truth);

    capture.freeze();
    destination.isSwitched = true;
    const hintedPages = destination.hintedPages;
    destination.drain();
    expect(capture.isEmpty).toBe(true);
    expect(destination.resentPages).toBe(0);
    expect(destination.confirmedPages).toBeGreaterThan(hintedPages / 4);

    const stream = join(directory, 'synthesised');
    await writeStream(stream, captured, destination);
    const own = ['-object', `memory-backend-ram,id=ram0,size=${lengthBytes}`, '-machine', 'memory-backend=ram0', '-S'];
    await using target = await startTinyGuest({ ...launch, name: 'vm2', incoming: 'defer', extraArgs: own });
    await load(target, stream);
    await using there = await waitForBoot(target.shellPath);
    const passes = async () =>
      /passes (\d+) errors (\d+)/
        .exec(await there.output('pattern status'))!
        .slice(1)
        .map(Number);
    const [before] = await passes();
    for (let waited = 0; (await passes())[0]! < before! + 2 && waited < 100; waited++) await sleep(100);
    const [after, errors] = await passes();
    expect(after).toBeGreaterThanOrEqual(before! + 2);
    expect(errors).toBe(0);
  });
});
