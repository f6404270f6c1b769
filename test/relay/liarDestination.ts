/** A destination with the right key that says whatever a test wants, to a real source relay of a switch. */
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { expect } from 'vitest';
import { RelayError } from '../../relay/errors.js';
import type { LinkConnection, LinkCredentials } from '../../relay/link/connection.js';
import { DurableLink } from '../../relay/link/durableLink.js';
import { type Frame, frameType, isOrdered } from '../../relay/link/frames.js';
import { type Listener, listen } from '../../relay/link/handshake.js';
import { SwitchSource } from '../../relay/source/switchSource.js';
import { encodeConfiguration, StreamEncoder } from '../../stream/index.js';
import type { Said } from './liarSource.js';
import { host, newCredentials, until } from './peers.js';
import { temporaryDirectory } from './temporaryDirectory.js';
import { pageOf } from './wire.js';

export class LiarDestination implements AsyncDisposable {
  readonly heard: Frame[] = [];
  readonly events: string[] = [];
  /** Why the source relay has no link any more, while it keeps what the guest needs. */
  readonly lost: RelayError[] = [];
  relay!: SwitchSource;
  link!: DurableLink;
  qemu!: Socket;
  #credentials!: LinkCredentials;
  #listener!: Listener;
  #peers: LinkConnection[] = [];
  #settled: { error: RelayError | null } | null = null;

  /** @param stream what QEMU sends: all that a guest of so many pages needs, or its beginning */
  static async start(stream: Buffer): Promise<LiarDestination> {
    const liar = new LiarDestination();
    const dir = await temporaryDirectory('liar');
    liar.#credentials = newCredentials();
    const socketPath = join(dir, 'source');
    liar.relay = await SwitchSource.listen(
      {
        ...{ socketPath, credentials: liar.#credentials, connections: 1, bandwidthBps: null, compress: false },
        ...{ store: { limitBytes: 256 * 2 ** 20, spillPath: null }, memory: null, reconnectTimeoutMs: 500 },
      },
      {
        ready: () => liar.events.push('ready'),
        running: () => liar.events.push('running'),
        refused: (message) => liar.events.push(`refused: ${message}`),
        lost: (cause) => liar.lost.push(cause),
      },
    );
    liar.relay.finished.then(
      () => {
        liar.#settled = { error: null };
      },
      (error: RelayError) => {
        liar.#settled = { error };
      },
    );
    await liar.meet((endpoint) => liar.relay.connect(endpoint));
    liar.relay.begin();
    liar.qemu = createConnection(socketPath).on('error', () => {});
    await once(liar.qemu, 'connect');
    liar.qemu.resume().write(stream);
    return liar;
  }

  /** Listens, as a destination relay does that is new. */
  async meet(connect: (endpoint: { host: string; port: number }) => Promise<void>): Promise<void> {
    this.#listener = await listen(this.#credentials, { host });
    const connecting = connect({ host, port: this.#listener.port });
    this.#peers = await this.#listener.joined;
    this.link = new DurableLink(this.#peers, {
      ordered: (frame) => this.heard.push({ ...frame, payload: Buffer.from(frame.payload) }),
      immediate: (frame) => this.heard.push({ ...frame, payload: Buffer.from(frame.payload) }),
      lost: () => {},
    });
    await connecting;
  }

  /** QEMU is done, and the guest is let go of. */
  async go(): Promise<void> {
    this.qemu.end();
    await until(() => this.events.includes('ready') || this.#settled !== null);
    this.relay.go();
    await this.hears(frameType.go);
  }

  say(...frames: readonly Said[]): void {
    for (const [type, given = '', sequence = 0] of frames) {
      const payload = Buffer.from(given as string);
      if (isOrdered(type)) this.link.sendOrdered(type, payload);
      else this.link.sendUrgent(type, payload, sequence);
    }
  }

  /** Reads nothing any more of what it is sent. */
  stopReading(): void {
    for (const { tls } of this.#peers) tls.pause();
  }

  async hears(type: number): Promise<Frame> {
    await until(() => this.heard.some((frame) => frame.type === type) || this.#settled !== null);
    const frame = this.heard.find((each) => each.type === type);
    expect(frame, `no frame of type ${type}: ${this.#settled?.error}`).toBeDefined();
    return frame!;
  }

  /** Why the relay gave its peer up: before `go` for good, and then QEMU's guest goes on; after it only its peer. */
  async failure(): Promise<RelayError> {
    await until(() => this.#settled !== null || this.lost.length > 0);
    const error = this.#settled?.error ?? this.lost[0];
    expect(error).toBeInstanceOf(RelayError);
    if (this.#settled !== null) await until(() => this.qemu.closed);
    return error!;
  }

  get isSettled(): boolean {
    return this.#settled !== null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.relay[Symbol.asyncDispose]();
    await this.#listener[Symbol.asyncDispose]();
    for (const { tls } of this.#peers) tls.on('error', () => {}).destroy();
    await this.link.close();
    this.qemu.destroy();
  }
}

/** A guest of so many pages, of which the first few are sent. @param again - written to meanwhile, and sent once more */
export function guestStream(pages: number, sent = 8, again: readonly number[] = []): Buffer {
  const block = { name: 'ram', index: 0, lengthBytes: pages * 4096, pageSizeBytes: null, gpa: null };
  const encoder = new StreamEncoder();
  encoder.header();
  encoder.configuration(encodeConfiguration('pc-q35-7.2'));
  encoder.sectionStart('start', 2, 'ram', 0, 4);
  encoder.ramBlocks([block]);
  encoder.eos();
  encoder.footer(2);
  encoder.sectionContinue('end', 2);
  for (let page = 0; page < sent; page++) encoder.page(block, page, pageOf(page & 0xff), 0);
  for (let page = sent; page < pages; page++) encoder.zeroPage(block, page);
  for (const page of again) encoder.page(block, page, pageOf(0xaa), 0);
  encoder.eos();
  encoder.footer(2);
  encoder.sectionStart('full', 7, 'timer', 0, 2);
  encoder.raw(Buffer.from('device state'));
  encoder.eof();
  return encoder.take();
}

/** Without an end of memory: the guest still runs. */
export function runningStream(): Buffer {
  const whole = guestStream(64);
  return whole.subarray(0, whole.length - 300);
}
