/**
 * Two real relays with a real link on loopback, between a scripted source stream and a destination that
 * puts the guest's memory together from what it is given. Scripted, because a real QEMU does not send a page
 * twice, or lie about its disk, when a test wants it to.
 */
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { createConnection, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { DiskReader } from '../../disk/diskReader.js';
import { openRawDisk } from '../../disk/index.js';
import { DestinationRelay } from '../../relay/destination/destinationRelay.js';
import type { LinkCredentials } from '../../relay/link/connection.js';
import type { SourceRelayOptions } from '../../relay/source/sourceRelay.js';
import { SourceRelay } from '../../relay/source/sourceRelay.js';
import type { CacheMap } from '../../relay/source/teleportMap.js';
import { StreamDecoder } from '../../stream/decoder.js';
import { StreamEncoder } from '../../stream/encoder.js';
import type { RamBlock } from '../../stream/handler.js';
import { temporaryDirectory } from './temporaryDirectory.js';

export const pageBytes = 4096;

/** Something between the two relays. */
export interface Between extends AsyncDisposable {
  readonly port: number;
}

export interface RigOptions
  extends Partial<
    Pick<
      SourceRelayOptions,
      | 'elide'
      | 'compress'
      | 'connections'
      | 'bandwidthBps'
      | 'reconnectTimeoutMs'
      | 'stoppedPatienceMs'
      | 'silenceLimitMs'
    >
  > {
  /** The disk as the destination relay sees it. */
  readonly reader?: (reader: DiskReader) => DiskReader;
  readonly via?: (port: number, credentials: LinkCredentials) => Promise<Between>;
  /** Of what is sent ahead, at the destination. */
  readonly heldLimitBytes?: number;
  /** Until then there is no destination QEMU. */
  readonly qemuStarts?: Promise<void>;
}

export class RelayRig implements AsyncDisposable {
  readonly block: RamBlock;
  /** What the destination QEMU holds. */
  readonly memory: Buffer;
  tail: Buffer = Buffer.alloc(0);
  sectionsAfterTail = 0;
  /** Resolves when the destination QEMU has seen the end of its stream. */
  readonly received: Promise<void>;
  #received!: () => void;
  #disposing: Promise<void> | null = null;

  private constructor(
    readonly dir: string,
    readonly pages: number,
    readonly disk: Buffer,
    readonly source: SourceRelay,
    readonly destination: DestinationRelay,
    readonly reader: DiskReader,
    readonly qemu: Server,
    readonly between: Between | null,
    /** What each relay was told by the other one of the guest that has moved. */
    readonly heard: readonly string[],
  ) {
    this.received = new Promise((resolve) => {
      this.#received = resolve;
    });
    this.block = { name: 'pc.ram', index: 0, lengthBytes: pages * pageBytes, pageSizeBytes: null, gpa: null };
    this.memory = Buffer.alloc(pages * pageBytes, 0xee);
  }

  static async start(
    pages: number,
    disk: Buffer,
    { reader: seen = (reader) => reader, via, heldLimitBytes, qemuStarts, ...options }: RigOptions = {},
  ): Promise<RelayRig> {
    const dir = await temporaryDirectory('relay');
    const diskPath = join(dir, 'disk.raw');
    await writeFile(diskPath, disk);
    const reader = await openRawDisk(diskPath);
    const qemuPath = join(dir, 'incoming');
    const qemu = createServer();
    const listens = () => new Promise<void>((resolve) => qemu.listen(qemuPath, resolve));
    const qemuListens = qemuStarts?.then(listens) ?? (await listens());
    const credentials = { migrationId: 'test', key: randomBytes(32) };
    const heard: string[] = [];
    const destination = await DestinationRelay.start(
      {
        credentials,
        listen: { host: '127.0.0.1' },
        qemuSocketPath: qemuPath,
        disks: [seen(reader)],
        reconnectTimeoutMs: options.reconnectTimeoutMs ?? 0,
        ...(options.silenceLimitMs === undefined ? {} : { silenceLimitMs: options.silenceLimitMs }),
        ...(heldLimitBytes === undefined ? {} : { heldLimitBytes }),
        ...(qemuListens === undefined ? {} : { qemuListens }),
      },
      { released: () => void heard.push('released') },
    );
    const between = (await via?.(destination.port, credentials)) ?? null;
    const source = await SourceRelay.listen(
      {
        socketPath: join(dir, 'source'),
        credentials,
        connections: 2,
        bandwidthBps: null,
        elide: true,
        compress: true,
        reconnectTimeoutMs: 0,
        ...options,
      },
      { running: () => void heard.push('running'), refused: () => void heard.push('refused') },
    );
    await source.connect({ host: '127.0.0.1', port: (between ?? destination).port });
    source.begin();
    const rig = new RelayRig(dir, pages, disk, source, destination, reader, qemu, between, heard);
    onTestFinished(() => rig[Symbol.asyncDispose]());
    qemu.on('connection', (socket) => {
      const decoder = new StreamDecoder({
        page: (_block, index, bytes, start) => bytes.copy(rig.memory, index * pageBytes, start, start + pageBytes),
        zeroPage: (_block, index, fill) => rig.memory.fill(fill, index * pageBytes, (index + 1) * pageBytes),
        sectionStart: () => {
          if (rig.tail.length > 0) rig.sectionsAfterTail++;
        },
        tail: (bytes) => {
          rig.tail = Buffer.concat([rig.tail, bytes]);
        },
      });
      socket.on('data', (chunk) => decoder.feed(chunk));
      socket.on('end', () => rig.#received());
      socket.on('error', () => {});
    });
    return rig;
  }

  /** Resolves when both relays call the move finished and the destination QEMU has read all of it. */
  async moved(): Promise<void> {
    await Promise.all([this.source.finished, this.destination.finished]);
    await this.received;
  }

  /** A cache map that says: guest pages from `pfn` on hold the disk from `diskPage` on. */
  static map(runs: [pfn: number, count: number, diskPage: number][]): CacheMap {
    return {
      runs: {
        count: runs.length,
        pfn: Float64Array.from(runs, ([pfn]) => pfn),
        pageCount: Uint32Array.from(runs, ([, count]) => count),
        disk: new Uint16Array(runs.length),
        diskOffsetBytes: Float64Array.from(runs, ([, , diskPage]) => diskPage * pageBytes),
      },
      gpaMap: [{ gpaStart: 0, lengthBytes: 2 ** 40, block: 'pc.ram', blockOffset: 0 }],
      diskIndexes: [0],
    };
  }

  /**
   * Plays a source QEMU: each pass is one section of pages; a page is given as its bytes, or as a fill byte.
   * @param between - called before each pass but the first
   */
  async send(
    passes: [page: number, content: Buffer | number][][],
    between?: (pass: number) => void | Promise<void>,
  ): Promise<void> {
    const encoder = new StreamEncoder();
    encoder.header(3);
    encoder.sectionStart('start', 2, 'ram', 0, 4);
    encoder.ramBlocks([this.block]);
    encoder.eos();
    encoder.footer(2);
    const socket = createConnection({ path: join(this.dir, 'source') });
    socket.on('error', () => {});
    const write = () => new Promise<void>((resolve) => socket.write(encoder.take(), () => resolve()));
    await write();
    for (const [index, pass] of passes.entries()) {
      if (index > 0) await between?.(index);
      encoder.sectionContinue(index === passes.length - 1 ? 'end' : 'part', 2);
      for (const [page, content] of pass) {
        if (typeof content === 'number') encoder.zeroPage(this.block, page, content);
        else encoder.page(this.block, page, content, 0);
      }
      encoder.eos();
      encoder.footer(2);
      await write();
    }
    encoder.sectionStart('full', 7, 'timer', 0, 2);
    encoder.raw(Buffer.from('device state'));
    await write();
    await new Promise<void>((resolve) => socket.end(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposing ??= this.#dispose();
    await this.#disposing;
  }

  async #dispose(): Promise<void> {
    await this.source[Symbol.asyncDispose]();
    await this.between?.[Symbol.asyncDispose]();
    await this.destination[Symbol.asyncDispose]();
    await this.reader[Symbol.asyncDispose]();
    await new Promise((resolve) => this.qemu.close(resolve));
  }
}
