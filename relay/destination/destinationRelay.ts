/**
 * The relay beside the destination QEMU: puts back from the local disk what the source only referred
 * to, writes everything into QEMU as a stream of its own making, and compares digests at the end.
 */
import type { DiskReader } from '../../disk/diskReader.js';
import type { RamBlock } from '../../stream/handler.js';
import { newCounters, type RelayCounters } from '../counters.js';
import { MemoryDigest, RunDigester, totalPagesOf } from '../digest.js';
import { RelayError } from '../errors.js';
import type { LinkCredentials } from '../link/connection.js';
import type { DurableLink } from '../link/durableLink.js';
import { type Frame, frameType } from '../link/frames.js';
import { type Listener, type ListenOptions, listen } from '../link/handshake.js';
import { encodeInPlace } from '../link/hints.js';
import { unpackTail } from '../link/packedTail.js';
import { decodeResend, encodeResendRequest } from '../link/resend.js';
import { Milestone } from '../milestone.js';
import { teleportLink } from '../teleportLink.js';
import { Acknowledgements } from './acknowledgements.js';
import { parseBlocks } from './blocksFrame.js';
import { FrameQueue } from './frameQueue.js';
import { MemoryAssembly } from './memoryAssembly.js';
import { QemuStream } from './qemuStream.js';
import { SentAhead } from './sentAhead.js';

export interface DestinationRelayOptions {
  readonly credentials: LinkCredentials;
  readonly listen: ListenOptions;
  /** Where the destination QEMU listens for its migration. */
  readonly qemuSocketPath: string;
  /** Resolves when it does; at once, when left out. */
  readonly qemuListens?: Promise<unknown>;
  /** Disks by the index that references name. The caller closes them. */
  readonly disks: readonly DiskReader[];
  /** So long the source relay may be out of reach; 0: a lost connection is the end. */
  readonly reconnectTimeoutMs: number;
  readonly silenceLimitMs?: number;
  /** Of what is sent ahead of QEMU's stream; what comes beyond it is dropped. Nothing, when left out. */
  readonly heldLimitBytes?: number;
  /** QEMU gets the state of the devices, without which it cannot run the guest, only by `handOver`. */
  readonly holdsDeviceState?: boolean;
}

export interface DestinationRelayHandlers {
  /** The source has let go of the guest. */
  released(): void;
}

export interface DestinationRelayState {
  readonly counters: RelayCounters;
  readonly bytesOnWire: number;
  readonly rttMs: number;
  /** Restores under way. */
  readonly pendingRestores: number;
}

/** Of device state that is held: hundreds of times what a guest has whose devices keep no memory of their own. */
const maxHeldBytes = 512 * 1024 * 1024;

export class DestinationRelay implements AsyncDisposable {
  readonly port: number;
  readonly #end = new Milestone<void>();
  /** Resolves when QEMU has been given everything and the roots are equal; rejects with a `RelayError`. */
  readonly finished: Promise<void> = this.#end.reached;
  readonly #parting = new Milestone<void>();
  /** Resolves when nothing more will be heard of the source relay. */
  readonly parted: Promise<void> = this.#parting.reached;
  readonly #handlers: DestinationRelayHandlers;
  readonly #options: DestinationRelayOptions;
  readonly #counters = newCounters();
  readonly #digester: RunDigester;
  readonly #sentAhead: SentAhead;
  readonly #listener: Listener;
  #link: DurableLink | null = null;
  #qemu: QemuStream | null = null;
  /** Null before the source has named the guest's blocks. */
  #memory: MemoryAssembly | null = null;
  /** Also of a stream without memory. */
  #digest: MemoryDigest | null = null;
  #folding: Disposable | null = null;
  readonly #queue = new FrameQueue({
    handle: (frame) => this.#work(frame),
    failed: (error) => this.#fail(error),
    hasEnded: () => this.#end.isDecided,
  });
  /** What comes after the guest's memory, where it is held. */
  readonly #held: Buffer[] = [];
  #heldBytes = 0;
  readonly #acknowledgements = new Acknowledgements((payload) => this.#link?.send(frameType.acknowledge, 0, payload));

  private constructor(options: DestinationRelayOptions, handlers: DestinationRelayHandlers, listener: Listener) {
    this.#options = options;
    this.#handlers = handlers;
    this.#digester = new RunDigester(options.credentials.key);
    this.#sentAhead = new SentAhead(this.#digester, options.heldLimitBytes ?? 0);
    this.#listener = listener;
    this.port = listener.port;
  }

  /** Listens for the source relay. */
  static async start(options: DestinationRelayOptions, handlers: DestinationRelayHandlers): Promise<DestinationRelay> {
    const staysOpen = options.reconnectTimeoutMs > 0;
    const listener = await listen(options.credentials, { ...options.listen, staysOpen });
    const relay = new DestinationRelay(options, handlers, listener);
    relay.#join().catch((error: RelayError) => relay.#fail(error));
    return relay;
  }

  get state(): DestinationRelayState {
    return {
      counters: this.#counters,
      bytesOnWire: this.#link?.bytesOnWire ?? 0,
      rttMs: this.#link?.rttMs ?? 0,
      pendingRestores: this.#memory?.pending ?? 0,
    };
  }

  /** The guest runs here. */
  tellRunning(): void {
    this.#link?.sendUrgent(frameType.running, Buffer.alloc(0));
  }

  /** The guest does not run here, and will not. */
  tellRefused(message: string): void {
    this.#link?.sendUrgent(frameType.refused, Buffer.from(message));
    void this.#part();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#end.isDecided) this.#fail(new RelayError('VMMIG_RELAY_ABORTED', 'the migration was aborted'));
    await this.#listener[Symbol.asyncDispose]();
    await this.#part();
    this.#qemu?.destroy();
  }

  async #join(): Promise<void> {
    const peers = await this.#listener.joined;
    const { reconnectTimeoutMs, silenceLimitMs } = this.#options;
    this.#link = teleportLink(
      peers,
      {
        ordered: (frame) => this.#queue.add(frame),
        immediate: (frame) => this.#hear(frame),
        lost: (cause) => {
          this.#fail(cause);
          this.#parting.reach();
        },
      },
      {
        by: { accept: this.#listener },
        reconnectTimeoutMs,
        ...(silenceLimitMs === undefined ? {} : { silenceLimitMs }),
      },
    );
  }

  /** No faster than QEMU takes the pages. */
  async #work(frame: Frame): Promise<void> {
    if (frame.type === frameType.memory || frame.type === frameType.ahead) return this.#hold(frame);
    const qemu = this.#qemu ?? (await this.#openStream());
    if (this.#end.isDecided) return;
    await this.#handle(frame, qemu);
    await qemu.drained();
  }

  async #openStream(): Promise<QemuStream> {
    await this.#options.qemuListens;
    const qemu = await QemuStream.connect(this.#options.qemuSocketPath, (error) => this.#fail(error));
    this.#qemu = qemu;
    if (this.#end.isDecided) qemu.destroy();
    qemu.onProgress = () => this.#memory?.readOn();
    return qemu;
  }

  /** There may be no QEMU yet. */
  #hold({ type, sequence, payload }: Frame): void {
    if (type === frameType.memory) this.#sentAhead.announce(payload);
    else this.#sentAhead.hold(payload);
    this.#acknowledgements.add(sequence);
  }

  async #handle(frame: Frame, qemu: QemuStream): Promise<void> {
    switch (frame.type) {
      case frameType.raw:
        qemu.raw(frame.payload);
        break;
      case frameType.blocks:
        this.#useBlocks(frame.payload, qemu);
        break;
      case frameType.hints:
        this.#told.hint(frame.payload);
        break;
      case frameType.batch:
        this.#told.batch(frame.sequence, frame.payload);
        return;
      case frameType.endOfRam:
        await this.#memory?.restored();
        this.#memory?.end();
        qemu.endOfRam();
        this.#folding?.[Symbol.dispose]();
        // While the state of the devices is under way.
        this.#digest?.fold();
        break;
      case frameType.tail:
        await this.#tail(frame.payload, qemu);
        break;
      case frameType.packedTail:
        await this.#tail(unpackTail(frame.payload), qemu);
        break;
      case frameType.root:
        await this.#memory?.restored();
        await this.#compare(frame.payload, qemu);
        return;
    }
    this.#acknowledgements.add(frame.sequence);
  }

  async #tail(bytes: Buffer, qemu: QemuStream): Promise<void> {
    await this.#memory?.restored();
    this.#digest ??= new MemoryDigest([]);
    this.#digest.opaque(bytes);
    if (this.#options.holdsDeviceState) this.#holdBack(bytes);
    else qemu.raw(bytes);
  }

  #useBlocks(payload: Buffer, qemu: QemuStream): void {
    if (this.#memory !== null) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay named its blocks twice');
    const { sectionId, blocks } = parseBlocks(payload);
    const common = { digester: this.#digester, counters: this.#counters, held: this.#sentAhead.held };
    const options = { blocks, disks: this.#options.disks, ...common };
    this.#memory = new MemoryAssembly(qemu, options, {
      inPlace: (run) => this.#link!.send(frameType.inPlace, 0, encodeInPlace(run)),
      askAgain: (sequence, record) => this.#link!.send(frameType.resendRequest, sequence, encodeResendRequest(record)),
      storageSilent: (error) => this.#fail(new RelayError('VMMIG_RELAY_STORAGE', error.message, error)),
      batchDone: (sequence) => this.#acknowledgements.add(sequence),
    });
    this.#digest = this.#memory.digest;
    this.#folding = this.#digest.foldInBackground();
    this.#counters.totalPages = totalPagesOf(blocks);
    const ramBlocks: RamBlock[] = blocks.map((block, index) => ({ ...block, index, pageSizeBytes: null, gpa: null }));
    qemu.useBlocks(sectionId, ramBlocks);
  }

  /** What is told of the guest's memory comes after the blocks that it has. */
  get #told(): MemoryAssembly {
    if (this.#memory === null)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay sent pages before their blocks');
    return this.#memory;
  }

  #hear(frame: Frame): void {
    switch (frame.type) {
      case frameType.resend:
        return this.#resent(frame);
      case frameType.released:
        if (!this.#end.isDecided)
          throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source let go of a guest that it has not sent whole');
        this.#handlers.released();
        return void this.#part();
      default:
        throw new RelayError('VMMIG_LINK_PROTOCOL', `the source relay sent a frame of type ${frame.type}`);
    }
  }

  /** Both sides have said all they had to say. */
  async #part(): Promise<void> {
    this.#parting.reach();
    await this.#link?.close();
  }

  #resent({ sequence, payload }: Frame): void {
    if (this.#memory === null) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay resent nothing');
    this.#memory.resent(sequence, decodeResend(payload));
  }

  async #compare(root: Buffer, qemu: QemuStream): Promise<void> {
    const isEqual = (this.#digest ?? new MemoryDigest([])).root().equals(root);
    this.#link!.send(frameType.rootResult, 0, Buffer.of(isEqual ? 1 : 0));
    if (!isEqual) throw new RelayError('VMMIG_RELAY_VERIFY', "the memory put together here is not the source's");
    this.#end.reach(this.#options.holdsDeviceState ? undefined : this.#finish(qemu));
    await this.finished;
  }

  /** Gives QEMU what was held. After `finished`. */
  async handOver(): Promise<void> {
    const qemu = this.#qemu!;
    for (const payload of this.#held.splice(0)) qemu.raw(payload);
    await this.#finish(qemu);
  }

  async #finish(qemu: QemuStream): Promise<void> {
    await qemu.end();
    this.#counters.bytes.stream = qemu.bytesWritten;
  }

  #holdBack(payload: Buffer): void {
    this.#heldBytes += payload.length;
    if (this.#heldBytes > maxHeldBytes)
      throw new RelayError('VMMIG_RELAY_STREAM', 'the state of the devices is too large to be held back');
    this.#held.push(Buffer.from(payload));
  }

  #fail(error: RelayError): void {
    if (!this.#end.miss(error)) return;
    this.#folding?.[Symbol.dispose]();
    this.#link?.send(frameType.failure, 0, Buffer.from(error.message));
    void this.#part();
    this.#qemu?.destroy();
    this.#memory?.stop();
  }
}
