/**
 * The destination relay of a switch. Until the permission to run comes it puts the guest's memory together as it
 * arrives; then it has QEMU load the device state, and from there on answers what the guest asks for: from what is here
 * already, from this host's disk, and only then from the source. Meanwhile the rest comes in.
 */
import { newCounters } from '../counters.js';
import { pagesOfBlocks, RunDigester, totalPagesOf } from '../digest.js';
import { RelayError } from '../errors.js';
import { decodeBatch } from '../link/batch.js';
import { DurableLink } from '../link/durableLink.js';
import { type Frame, frameType } from '../link/frames.js';
import { type Listener, listen } from '../link/handshake.js';
import { decodeHints } from '../link/hints.js';
import { encodePlaced } from '../link/placed.js';
import { decodeResend } from '../link/resend.js';
import { Milestone } from '../milestone.js';
import { Acknowledgements } from './acknowledgements.js';
import { parseCapture } from './blocksFrame.js';
import { FrameQueue } from './frameQueue.js';
import type { PostcopyBegin, PostcopyHandlers } from './postcopy/options.js';
import { PostcopyStream } from './postcopy/postcopyStream.js';
import { Departure } from './switch/departure.js';
import { Faults } from './switch/faults.js';
import { assembleGuest, type Guest } from './switch/guest.js';
import type { SwitchDestinationHandlers, SwitchDestinationOptions, SwitchDestinationState } from './switch/options.js';
import type { SwitchPhases } from './switch/phases.js';
import { SentAhead } from './switch/sentAhead.js';

export type { SwitchDestinationHandlers, SwitchDestinationOptions, SwitchDestinationState } from './switch/options.js';

/** A batch of references is shorter. */
const waitingBytes = 64 * 1024;
/** Pages may come to much more than the batch that brings them: with so much before QEMU, every frame waits. */
const maxWaitingBytes = 8 * 1024 * 1024;

export class SwitchDestination implements AsyncDisposable {
  readonly port: number;
  readonly #end = new Milestone<void>();
  /** Resolves when QEMU has all of the guest's memory and it was found equal; rejects with a `RelayError`. */
  readonly finished: Promise<void> = this.#end.reached;
  readonly #options: SwitchDestinationOptions;
  readonly #handlers: SwitchDestinationHandlers;
  readonly #counters = newCounters();
  readonly #digester: RunDigester;
  readonly #listener: Listener;
  readonly #acknowledgements = new Acknowledgements((payload) => this.#link?.send(frameType.acknowledge, 0, payload));
  readonly #givenBack = new Acknowledgements((payload) => this.#link?.send(frameType.givenBack, 0, payload));
  readonly #queue = new FrameQueue({
    handle: (frame) => this.#work(frame),
    failed: (error) => this.#fail(error),
    hasEnded: () => this.#end.isDecided,
  });
  readonly #phases: SwitchPhases = { hasSwitched: false, isLoading: false };
  readonly #sentAhead: SentAhead;
  readonly #departure = new Departure();
  readonly #faults = new Faults();
  #link: DurableLink | null = null;
  #guest: Guest | null = null;

  private constructor(options: SwitchDestinationOptions, handlers: SwitchDestinationHandlers, listener: Listener) {
    this.#options = options;
    this.#handlers = handlers;
    this.#digester = new RunDigester(options.credentials.key);
    this.#sentAhead = new SentAhead(this.#digester, options.heldLimitBytes);
    this.#listener = listener;
    this.port = listener.port;
  }

  /** Listens for the source relay. */
  static async start(
    options: SwitchDestinationOptions,
    handlers: SwitchDestinationHandlers,
  ): Promise<SwitchDestination> {
    const patience = options.takesOver === true ? { timeoutMs: options.reconnectTimeoutMs } : {};
    const listener = await listen(options.credentials, { ...options.listen, ...patience, staysOpen: true });
    const relay = new SwitchDestination(options, handlers, listener);
    relay.#join().catch((error: RelayError) => relay.#fail(error));
    return relay;
  }

  get state(): SwitchDestinationState {
    return {
      counters: this.#counters,
      bytesOnWire: this.#link?.bytesOnWire ?? 0,
      rttMs: this.#link?.rttMs ?? 0,
      isConnected: this.#link?.isConnected ?? false,
      hasTakenOver: this.#options.takesOver === true,
      awaitsSource: this.#options.takesOver === true && this.#link === null,
      reconnects: this.#link?.reconnects ?? 0,
      pendingRestores: this.#guest?.disks.pending ?? 0,
      missingPages: this.#guest?.stream.missing ?? 0,
      faults: this.#guest?.stream.faults ?? null,
    };
  }

  /** The guest runs here: the source can let go of it. */
  tellRunning(): void {
    this.#phases.isLoading = false;
    this.#guest?.disks.readOn();
    this.#link?.sendUrgent(frameType.running, Buffer.alloc(0));
  }

  /** The guest does not run here, and will not. */
  tellRefused(message: string): void {
    this.#link?.sendUrgent(frameType.refused, Buffer.from(message));
    if (this.#end.isDecided) this.#hangUp(message);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#end.isDecided) this.#fail(new RelayError('VMMIG_RELAY_ABORTED', 'the migration was aborted'));
    await this.#listener[Symbol.asyncDispose]();
    await this.#link?.close();
    await this.#guest?.stream[Symbol.asyncDispose]();
  }

  async #join(): Promise<void> {
    const peers = await this.#listener.joined;
    const handlers = this.#handlers;
    this.#link = new DurableLink(peers, {
      ordered: (frame) => this.#queue.add(frame),
      immediate: (frame) => this.#immediate(frame),
      lost: (cause) => this.#fail(cause),
      interrupted: (cause) => handlers.interrupted?.(cause),
      resumed: (gapMs) => handlers.resumed?.(gapMs),
    });
    if (this.#options.takesOver === true) this.#endure();
  }

  #endure(): void {
    const { reconnectTimeoutMs } = this.#options;
    this.#link!.endure({ reconnectTimeoutMs, by: { accept: this.#listener } });
  }

  /** No faster than QEMU takes the pages. */
  async #work(frame: Frame): Promise<void> {
    await this.#handle(frame);
    // Only what brings bytes has to wait for QEMU; least of all the permission to run.
    const backlogBytes = this.#guest?.stream.backlogBytes ?? 0;
    if (frame.payload.length >= waitingBytes || backlogBytes >= maxWaitingBytes) await this.#guest?.disks.drained();
  }

  async #handle({ type, sequence, payload }: Frame): Promise<void> {
    if (type === frameType.blocks) return await this.#begin(payload);
    if (type === frameType.memory) return this.#sentAhead.announce(payload);
    if (type === frameType.ahead) return this.#hold(sequence, payload);
    const guest = this.#guest;
    if (guest === null) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay sent pages before their blocks');
    switch (type) {
      case frameType.hints:
        return guest.disks.hint(decodeHints(payload, guest.pagesOfBlock));
      case frameType.batch:
        return guest.placement.batch(sequence, decodeBatch(payload, guest.pagesOfBlock));
      case frameType.remote:
        this.#requireBeforeGo(type);
        return this.#departure.addRemote(payload);
      case frameType.device:
        this.#requireBeforeGo(type);
        return this.#departure.addDevice(payload);
      case frameType.go:
        return this.#switchOver(guest);
      case frameType.root:
        return await this.#finish(payload, guest);
      default:
        throw new RelayError('VMMIG_LINK_PROTOCOL', `the source relay sent a frame of type ${type}`);
    }
  }

  #requireBeforeGo(type: number): void {
    if (this.#phases.hasSwitched)
      throw new RelayError('VMMIG_LINK_PROTOCOL', `the source relay sent a frame of type ${type} after it let go`);
  }

  #hold(sequence: number, payload: Buffer): void {
    this.#requireBeforeGo(frameType.ahead);
    this.#sentAhead.hold(payload);
    this.#acknowledgements.add(sequence);
  }

  /** The source tells what memory there is. */
  async #begin(payload: Buffer): Promise<void> {
    if (this.#guest !== null) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay named its blocks twice');
    const { head, section, blocks } = parseCapture(payload);
    this.#sentAhead.useBlocks(pagesOfBlocks(blocks));
    const pageSizes = await this.#options.qemuListens;
    const ramBlocks = blocks.map((block, index) => ({
      ...block,
      index,
      pageSizeBytes: pageSizes.get(block.name) ?? null,
      gpa: null,
    }));
    const begin = { head, ramSection: section, blocks: ramBlocks };
    const stream = await this.#openStream(begin);
    if (this.#end.isDecided) return await stream[Symbol.asyncDispose]();
    this.#counters.totalPages = totalPagesOf(blocks);
    this.#guest = assembleGuest(stream, ramBlocks, {
      link: this.#link!,
      acknowledgements: this.#acknowledgements,
      givenBack: this.#givenBack,
      phases: this.#phases,
      digester: this.#digester,
      counters: this.#counters,
      disks: this.#options.disks,
      held: this.#sentAhead.held,
      takesOver: this.#options.takesOver === true,
    });
    if (this.#options.takesOver === true) this.#takeOver(this.#guest);
    else stream.begin(begin);
  }

  async #openStream(begin: PostcopyBegin): Promise<PostcopyStream> {
    const { qemuSocketPath, takesOver } = this.#options;
    const handlers: PostcopyHandlers = {
      fault: (run) => this.#faults.raise(run, this.#guest!, this.#link!),
      lost: (error) => this.#fail(error),
      progress: () => this.#guest?.disks.readOn(),
    };
    // What is sent is not forgotten: the source would not send it again.
    const options = { collectorBytes: Infinity };
    if (takesOver === true) return await PostcopyStream.resume(qemuSocketPath, handlers, begin, options);
    return await PostcopyStream.connect(qemuSocketPath, handlers, options);
  }

  /** The guest goes on: the source is told what QEMU has, and tells the rest. */
  #takeOver({ stream, disks }: Guest): void {
    disks.readLess();
    this.#phases.hasSwitched = true;
    for (const [at, payload] of encodePlaced(stream.placedRuns()).entries())
      this.#link!.send(frameType.placed, at, payload);
    this.#handlers.loaded();
  }

  /** The source lets go of the guest: QEMU loads it, and from now on asks for the memory that it lacks. */
  #switchOver({ pagesOfBlock, stream, disks, receipts, placement }: Guest): void {
    if (this.#phases.hasSwitched) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay switched over twice');
    for (const run of this.#departure.remote(pagesOfBlock)) placement.remote(run);
    placement.dropUntold();
    disks.readLess();
    this.#phases.hasSwitched = true;
    this.#endure();
    this.#phases.isLoading = true;
    this.#handlers.permitted();
    stream.switchOver(this.#departure.takeDevices()).then(
      () => this.#handlers.loaded(),
      (error) => this.#fail(error),
    );
    receipts.switched();
  }

  #immediate({ type, sequence, payload }: Frame): void {
    const guest = this.#guest;
    if (guest === null) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay answered before it was asked');
    if (type === frameType.answer && this.#phases.hasSwitched)
      return guest.placement.batch(sequence, this.#faults.answered(payload, guest));
    if (type !== frameType.resend)
      throw new RelayError('VMMIG_LINK_PROTOCOL', `the source relay sent a frame of type ${type}`);
    guest.disks.resent(sequence, decodeResend(payload));
  }

  /** The source has nothing left. */
  async #finish(root: Buffer, { stream, placement }: Guest): Promise<void> {
    if (!this.#phases.hasSwitched)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay compared before the permission to run');
    const isEqual = placement.root().equals(root);
    this.#sentAhead.held.clear();
    const isWell = await stream.end();
    this.#counters.bytes.stream = stream.bytesWritten;
    this.#link!.send(frameType.rootResult, 0, Buffer.of(isEqual ? 1 : 0));
    if (!isEqual) throw new RelayError('VMMIG_RELAY_VERIFY', "the memory put together here is not the source's");
    if (!isWell)
      throw new RelayError('VMMIG_RELAY_QEMU', 'the destination QEMU says that it could not take all memory');
    this.#end.reach();
  }

  #hangUp(message: string): void {
    this.#link?.send(frameType.failure, 0, Buffer.from(message));
    void this.#link?.close();
  }

  #fail(error: RelayError): void {
    if (!this.#end.miss(error)) return;
    // Permitted to run the guest, this host has to say what became of it, when it is known: `tellRefused`.
    if (!this.#phases.isLoading) this.#hangUp(error.message);
    void this.#guest?.stream[Symbol.asyncDispose]();
    this.#guest?.disks.stop();
    this.#sentAhead.held.clear();
  }
}
