/** A peer with the right key that does not keep to the protocol, and a QEMU that does not, against a real source relay. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdir, stat } from 'node:fs/promises';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { MemorySource } from '../../pager/index.js';
import { RelayError } from '../../relay/errors.js';
import type { LinkConnection } from '../../relay/link/connection.js';
import { DurableLink } from '../../relay/link/durableLink.js';
import { type Frame, frameType } from '../../relay/link/frames.js';
import { listen } from '../../relay/link/handshake.js';
import { SourceRelay } from '../../relay/source/sourceRelay.js';
import { maxRetainedBytes } from '../../relay/source/window.js';
import { StreamEncoder } from '../../stream/encoder.js';
import { host, newCredentials, until } from './peers.js';
import { RelayRig } from './rig.js';
import { temporaryDirectory } from './temporaryDirectory.js';

const pageBytes = 4096;
const { acknowledge, resendRequest, rootResult, failure } = frameType;

class HostileDestination implements AsyncDisposable {
  readonly ordered: Frame[] = [];
  isLost = false;
  private constructor(
    readonly dir: string,
    readonly relay: SourceRelay,
    readonly peers: LinkConnection[],
    readonly qemu: Socket,
  ) {}

  static async start(options: { silenceLimitMs?: number } = {}): Promise<HostileDestination> {
    const dir = await temporaryDirectory('hostile');
    const credentials = newCredentials();
    const listener = await listen(credentials, { host });
    const socketPath = join(dir, 'source');
    const relay = await SourceRelay.listen(
      {
        socketPath,
        credentials,
        connections: 1,
        bandwidthBps: null,
        elide: true,
        compress: true,
        reconnectTimeoutMs: 0,
        ...options,
      },
      { running: () => {}, refused: () => {} },
    );
    await relay.connect({ host, port: listener.port });
    relay.begin();
    expect((await stat(socketPath)).mode & 0o777).toBe(0o600);
    const qemu = createConnection(socketPath).on('error', () => {});
    qemu.resume();
    await once(qemu, 'connect');
    return new HostileDestination(dir, relay, await listener.joined, qemu);
  }

  /** Speaks the link's frames; a destination that says nothing at all leaves this out. */
  link(onOrdered: (frame: Frame, link: DurableLink) => void = () => {}): DurableLink {
    const link: DurableLink = new DurableLink(this.peers, {
      ordered: (frame) => {
        this.ordered.push({ ...frame, payload: Buffer.from(frame.payload) });
        onOrdered(frame, link);
      },
      immediate: () => {},
      lost: () => {
        this.isLost = true;
      },
    });
    return link;
  }

  /** Begins a stream as QEMU does, with these pages. */
  begin(pages: number, page: (at: number) => Buffer): void {
    const block = { name: 'pc.ram', index: 0, lengthBytes: pages * pageBytes, pageSizeBytes: null, gpa: null };
    const encoder = new StreamEncoder();
    encoder.header(3);
    encoder.sectionStart('start', 2, 'ram', 0, 4);
    encoder.ramBlocks([block]);
    encoder.eos();
    encoder.footer(2);
    encoder.sectionContinue('part', 2);
    for (let at = 0; at < pages; at++) encoder.page(block, at, page(at), 0);
    encoder.eos();
    encoder.footer(2);
    this.qemu.write(encoder.take());
  }

  async failure(): Promise<RelayError> {
    const error = await this.relay.finished.then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(RelayError);
    // QEMU must notice, or its guest would stand still.
    await until(() => this.qemu.closed);
    return error as RelayError;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.relay[Symbol.asyncDispose]();
    expect(await readdir(this.dir)).toEqual([]);
    for (const { tls } of this.peers) tls.on('error', () => {}).destroy();
    this.qemu.destroy();
  }
}

function be32(...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [at, value] of values.entries()) bytes.writeUInt32BE(value, at * 4);
  return bytes;
}

describe('a source relay', () => {
  test.each<[string, number, number, Buffer]>([
    ['an acknowledgement of what was never sent', acknowledge, 0, be32(7777)],
    ['an acknowledgement of the same frame twice', acknowledge, 0, be32(0, 0)],
    ['an acknowledgement that ends in the middle of a number', acknowledge, 0, Buffer.alloc(3)],
    ['an acknowledgement with something behind it', acknowledge, 0, Buffer.concat([be32(0), Buffer.alloc(1)])],
    ['a request for a record that is not in its batch', resendRequest, 2, Buffer.of(0, 9)],
    ['a request for a record that went as bytes', resendRequest, 2, Buffer.of(0, 0)],
    ['a request for a frame that was never sent', resendRequest, 4000, Buffer.of(0, 0)],
    ['a malformed request', resendRequest, 2, Buffer.of(0)],
    ['an empty request', resendRequest, 2, Buffer.alloc(0)],
    ['a result before the end', rootResult, 0, Buffer.of(1)],
    ['a bad result before the end', rootResult, 0, Buffer.of(0)],
    ['a guest that runs before the end', frameType.running, 0, Buffer.alloc(0)],
    ['a guest that the destination has let go of', frameType.released, 0, Buffer.alloc(0)],
    ['a second greeting', frameType.hello, 0, Buffer.from('{}')],
    ['a resent run', frameType.resend, 0, Buffer.alloc(3)],
  ])('gives up on %s', async (_, type, sequence, payload) => {
    await using destination = await HostileDestination.start();
    const link = destination.link();
    destination.begin(4, () => randomBytes(pageBytes));
    await until(() => destination.ordered.length >= 3);
    link.send(type, sequence, payload);
    expect(await destination.failure()).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
    await until(() => destination.isLost);
  });

  test('gives up on a request for a page that was sent ahead', async () => {
    await using destination = await HostileDestination.start();
    const link = destination.link();
    const source: MemorySource = {
      read: (_offset, lengthBytes, into) => void into.fill(7, 0, lengthBytes),
      async *dataRuns(offset, lengthBytes) {
        yield { offset, lengthBytes };
      },
      nextData: (offset) => offset,
    };
    const blocks = [{ name: 'pc.ram', lengthBytes: 4 * pageBytes, place: { file: source, fileOffset: 0 } }];
    await destination.relay.sendAhead({ blocks, limitBytes: 2 ** 20 });
    await until(() => destination.ordered.length >= 2);
    expect(destination.ordered[1]!.type).toBe(frameType.ahead);
    link.send(resendRequest, 1, Buffer.of(0, 0));
    expect(await destination.failure()).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
    await until(() => destination.isLost);
  });

  test('gives up on garbage', async () => {
    await using destination = await HostileDestination.start();
    destination.begin(4, () => randomBytes(pageBytes));
    destination.peers[0]!.tls.on('error', () => {}).write(randomBytes(100_000));
    expect(await destination.failure()).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
  });

  test.each([failure, frameType.refused])(
    "passes on why its peer gave up, and keeps to the peer's words (%i)",
    async (type) => {
      await using destination = await HostileDestination.start();
      destination.link().send(type, 0, Buffer.from('the disk is gone'));
      expect(await destination.failure()).toMatchObject({
        code: 'VMMIG_RELAY_QEMU',
        message: expect.stringContaining('the disk is gone'),
      });
    },
  );

  test('sends a run again for as long as it is not acknowledged, and not afterwards', async () => {
    await using destination = await HostileDestination.start();
    const link = destination.link();
    destination.relay.setCacheMap(RelayRig.map([[0, 8, 0]]));
    destination.begin(8, (at) => Buffer.alloc(pageBytes, at));
    await until(() => destination.ordered.some(({ type }) => type === frameType.batch));
    const { sequence } = destination.ordered.find(({ type }) => type === frameType.batch)!;
    link.send(resendRequest, sequence, Buffer.of(0, 0));
    await until(() => destination.relay.state.counters.pages.mismatched === 8);
    link.send(acknowledge, 0, be32(...destination.ordered.map((frame) => frame.sequence)));
    link.send(resendRequest, sequence, Buffer.of(0, 0));
    expect(await destination.failure()).toMatchObject({ code: 'VMMIG_LINK_PROTOCOL' });
  });

  test('does not read on from QEMU when nobody reads what it sends', async () => {
    await using destination = await HostileDestination.start();
    const before = process.memoryUsage().rss;
    const pages = 16 * 1024;
    destination.begin(pages, () => randomBytes(pageBytes));
    let streamed = -1;
    while (destination.relay.state.counters.bytes.stream !== streamed) {
      streamed = destination.relay.state.counters.bytes.stream;
      await delay(200);
    }
    expect(streamed).toBeLessThan(36 * 1024 * 1024);
    // The window of the first pass, and the batch that filled it.
    expect(destination.relay.state.backlogBytes).toBeLessThan(33 * 1024 * 1024);
    // The stream itself waits in this process, too.
    expect(process.memoryUsage().rss - before - 2 * pages * pageBytes).toBeLessThan(64 * 1024 * 1024);
    // Once it is acknowledged, everything gets through.
    const link = destination.link((frame, to) => to.send(acknowledge, 0, be32(frame.sequence)));
    await until(() => destination.relay.state.counters.pages.sent === pages);
    expect(destination.relay.state.counters.bytes.stream).toBeGreaterThan(pages * pageBytes);
    await link.close();
  });

  test('keeps no more than its bound of pages that are sent as references', async () => {
    await using destination = await HostileDestination.start();
    destination.link();
    const pages = 80 * 1024;
    destination.relay.setCacheMap(RelayRig.map([[0, pages, 0]]));
    const page = randomBytes(pageBytes);
    destination.begin(pages, () => page);
    let streamed = -1;
    while (destination.relay.state.counters.bytes.stream !== streamed) {
      streamed = destination.relay.state.counters.bytes.stream;
      await delay(300);
    }
    expect(streamed).toBeLessThan(maxRetainedBytes + 16 * 1024 * 1024);
    expect(streamed).toBeLessThan(pages * pageBytes);
  });

  test('notices a peer that has fallen silent', async () => {
    await using destination = await HostileDestination.start({ silenceLimitMs: 300 });
    expect(await destination.failure()).toMatchObject({ code: 'VMMIG_LINK_LOST' });
  });
});

describe('a QEMU', () => {
  test.each([
    ['sends garbage', randomBytes(10_000), 'VMMIG_RELAY_STREAM'],
    ['sends nothing and hangs up', Buffer.alloc(0), 'VMMIG_RELAY_STREAM'],
    ['hangs up in its header', Buffer.from('5145564d', 'hex'), 'VMMIG_RELAY_STREAM'],
  ])('that %s ends the migration on both sides', async (_, bytes, code) => {
    await using destination = await HostileDestination.start();
    destination.link();
    destination.qemu.end(bytes);
    expect(await destination.failure()).toMatchObject({ code });
    await until(() => destination.isLost);
  });

  test('that breaks off in the middle of a page is no end of its stream', async () => {
    await using destination = await HostileDestination.start();
    destination.link();
    destination.begin(4, () => randomBytes(pageBytes));
    await until(() => destination.ordered.length > 0);
    destination.qemu.destroy();
    expect((await destination.failure()).code).toMatch(/^VMMIG_RELAY_(QEMU|STREAM)$/);
    expect(destination.ordered.some(({ type }) => type === frameType.root)).toBe(false);
  });

  test('that comes second finds nobody', async () => {
    await using destination = await HostileDestination.start();
    const second = createConnection(join(destination.dir, 'source'));
    await expect(once(second, 'connect')).rejects.toMatchObject({ syscall: 'connect' });
    expect(destination.qemu.destroyed).toBe(false);
  });
});
