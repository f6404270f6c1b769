/** A source with the right key that sends whatever a test wants, to a real destination relay of a switch. */
import { join } from 'node:path';
import { expect } from 'vitest';
import { SwitchDestination } from '../../relay/destination/switchDestination.js';
import { RelayError } from '../../relay/errors.js';
import { packPages } from '../../relay/link/batch.js';
import { DurableLink } from '../../relay/link/durableLink.js';
import { type Frame, frameType, isOrdered } from '../../relay/link/frames.js';
import { dial } from '../../relay/link/handshake.js';
import { encodeRemoteSet } from '../../relay/store/remoteSet.js';
import { encodeConfiguration } from '../../stream/index.js';
import { host, newCredentials, until } from './peers.js';
import { FakeQemu } from './postcopy/fakeQemu.js';
import { temporaryDirectory } from './temporaryDirectory.js';
import { encodeWireBatch, pageOf, type WireRecord } from './wire.js';

export type Said = readonly [type: number, payload?: Buffer | string | object, sequence?: number];

/** Pages of the guest's only block. */
export const guestPages = 256;

export class LiarSource implements AsyncDisposable {
  readonly heard: Frame[] = [];
  readonly events: string[] = [];
  isLost = false;
  relay!: SwitchDestination;
  link!: DurableLink;
  qemu!: FakeQemu;

  static async start(): Promise<LiarSource> {
    const liar = new LiarSource();
    const dir = await temporaryDirectory('liar');
    const qemuSocketPath = join(dir, 'incoming');
    liar.qemu = await FakeQemu.listen(qemuSocketPath);
    const credentials = newCredentials();
    const options = {
      ...{ credentials, qemuSocketPath, listen: { host }, disks: [], heldLimitBytes: 2 ** 20 },
      ...{ qemuListens: Promise.resolve(new Map<string, number>()), reconnectTimeoutMs: 500 },
    };
    liar.relay = await SwitchDestination.start(options, {
      permitted: () => liar.events.push('permitted'),
      loaded: () => liar.events.push('loaded'),
    });
    const endpoint = { host, port: liar.relay.port };
    liar.link = new DurableLink(await dial(endpoint, credentials, { connections: 2 }), {
      immediate: (frame) => liar.heard.push({ ...frame, payload: Buffer.from(frame.payload) }),
      lost: () => {
        liar.isLost = true;
      },
    });
    return liar;
  }

  say(...frames: readonly Said[]): void {
    for (const [type, given = '', sequence = 0] of frames) {
      const isJson = typeof given === 'object' && !Buffer.isBuffer(given);
      const payload = Buffer.from((isJson ? JSON.stringify(given) : given) as string);
      if (isOrdered(type)) this.link.sendOrdered(type, payload);
      else this.link.sendUrgent(type, payload, sequence);
    }
  }

  /** Why the relay gave up. */
  async failure(): Promise<RelayError> {
    const error = await this.relay.finished.then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(RelayError);
    return error as RelayError;
  }

  async hears(type: number): Promise<Frame> {
    await until(() => this.heard.some((frame) => frame.type === type));
    return this.heard.find((frame) => frame.type === type)!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.relay[Symbol.asyncDispose]();
    await this.link.close();
    await this.qemu[Symbol.asyncDispose]();
  }
}

const head = Buffer.concat([Buffer.from('QEVM\0\0\0\x03'), encodeConfiguration('pc-q35-7.2')]).toString('base64');

export function captured(pages = guestPages, name = 'ram'): object {
  return { section: { id: 2, version: 4 }, head, blocks: [{ name, lengthBytes: pages * 4096, pageSizeBytes: null }] };
}

export function memoryOf(pages = guestPages, name = 'ram'): object {
  return { blocks: [{ name, lengthBytes: pages * 4096 }] };
}

/** A batch of one record; pages of bytes hold their number. */
export function batchOf(record: Partial<WireRecord>): Buffer {
  const whole = { kind: 1, page: 0, count: 1, ...record };
  const pages = Array.from({ length: whole.kind === 1 ? whole.count : 0 }, (_, at) => pageOf((whole.page + at) & 0xff));
  return encodeWireBatch({ records: [whole], pages: Buffer.concat(pages) });
}

export function remoteOf(...runs: number[]): Buffer {
  return encodeRemoteSet([Uint32Array.from(runs)]);
}

export function devicePiece(bytes: Buffer = Buffer.from('device sections')): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, packPages(bytes)]);
}

export const { blocks, memory, ahead, batch, hints, remote, device, go, root, answer, resend } = frameType;
