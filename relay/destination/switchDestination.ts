/**
 * The destination relay of a switch. Until the permission to run comes it puts the guest's memory together as it
 * arrives; then it has QEMU load the device state, and from there on answers what the guest asks for: from what is here
 * already, from this host's disk, and only then from the source. Meanwhile the rest comes in.
 */

import { setTimeout as delay } from 'node:timers/promises';
import type { RamBlock } from '../../stream/handler.js';
import { newCounters } from '../counters.js';
import { pagesOfBlocks, RunDigester, totalPagesOf } from '../digest.js';
import { RelayError } from '../errors.js';
import { decodeBatch } from '../link/batch.js';
import type { DurableLink } from '../link/durableLink.js';
import { type Frame, frameType } from '../link/frames.js';
import { decodeHints } from '../link/hints.js';
import { encodePlaced } from '../link/placed.js';
import { decodeResend } from '../link/resend.js';
import { Milestone } from '../milestone.js';
import { Acknowledgements } from './acknowledgements.js';
import { type Capture, parseCapture, requireSameBlocks } from './blocksFrame.js';
import { FrameQueue } from './frameQueue.js';
import type { PostcopyBegin, PostcopyHandlers } from './postcopy/options.js';
import { PostcopyStream } from './postcopy/postcopyStream.js';
import { SentAhead } from './sentAhead.js';
import { Departure } from './switch/departure.js';
import { Faults } from './switch/faults.js';
import { assembleGuest, blocksThere, type Guest } from './switch/guest.js';
import type { SwitchDestinationHandlers, SwitchDestinationOptions, SwitchDestinationState } from './switch/options.js';
import type { SwitchPhases } from './switch/phases.js';
import { SourceLink } from './switch/sourceLink.js';

export type { SwitchDestinationHandlers, SwitchDestinationOptions, SwitchDestinationState } from './switch/options.js';

/** A batch of references is shorter. */
const waitingBytes = 64 * 1024;
/** Pages may come to much more than the batch that brings them: with so much before QEMU, every frame waits. */
const loadPollMs = 1;
const maxWaitingBytes = 8 * 1024 * 1024;

export class SwitchDestination implements AsyncDisposable {
  readonly #end = new Milestone<void>();
  /** Resolves when QEMU has all of the guest's memory and it was found equal; rejects with a `RelayError`. */
  readonly finished: Promise<void> = this.#end.reached;
  readonly #options: SwitchDestinationOptions;
  readonly #handlers: SwitchDestinationHandlers;
  readonly #counters = newCounters();
  readonly #digester: RunDigester;
  /** Of what was sent ahead. */
  readonly #acknowledgements = new Acknowledgements((payload) => this.#link.send(frameType.acknowledge, 0, payload));
  readonly #queue = new FrameQueue({
    handle: (frame) => this.#work(frame),
    failed: (error) => this.#fail(error),
    hasEnded: () => this.#end.isDecided,
    crowded: (isCrowded) => this.#link.holdBulk(isCrowded),
  });
  readonly #phases: SwitchPhases = { hasSwitched: false, isLoading: false };
  readonly #sentAhead: SentAhead;
  readonly #departure = new Departure();
  readonly #faults = new Faults();
  #link!: SourceLink;
  #guest: Guest | null = null;
  /** From which it comes. */
  #guestLink: DurableLink | null = null;
  #blocks: readonly RamBlock[] = [];

  private constructor(options: SwitchDestinationOptions, handlers: SwitchDestinationHandlers) {
    this.#options = options;
    this.#handlers = handlers;
    this.#digester = new RunDigester(options.credentials.key);
    this.#sentAhead = new SentAhead(this.#digester, options.heldLimitBytes);
  }

  /** Listens for the source relay. */
  static async start(
    options: SwitchDestinationOptions,
    handlers: SwitchDestinationHandlers,
  ): Promise<SwitchDestination> {
    const relay = new SwitchDestination(options, handlers);
    relay.#link = await SourceLink.open(
      { ...options, takesOver: options.takesOver === true },
      {
        ordered: (frame) => relay.#queue.add(frame),
        immediate: (frame) => relay.#immediate(frame),
        lost: (cause) => relay.#fail(cause),
        interrupted: (cause) => handlers.interrupted?.(cause),
        resumed: (gapMs) => handlers.resumed?.(gapMs),
      },
    );
    return relay;
  }

  /** Where the source relay is awaited. */
  get port(): number {
    return this.#link.port;
  }

  get state(): SwitchDestinationState {
    return {
      counters: this.#counters,
      ...this.#link.state,
      pendingRestores: this.#guest?.disks.pending ?? 0,
      missingPages: this.#guest?.stream.missing ?? 0,
      faults: this.#guest?.stream.faults ?? null,
    };
  }

  /** The guest runs here: the source can let go of it. */
  tellRunning(): void {
    this.#phases.isLoading = false;
    this.#guest?.disks.readOn();
    this.#link.sendUrgent(frameType.running, Buffer.alloc(0));
  }

  /** The guest does not run here, and will not. */
  tellRefused(message: string): void {
    this.#link.sendUrgent(frameType.refused, Buffer.from(message));
    if (this.#end.isDecided) this.#hangUp(message);
  }

  /**
   * The source relay has died, and another one is to take its place: it is awaited at `port`, with the same key. It will
   * be told what QEMU has, and asked for what QEMU waits for.
   *
   * @throws RelayError VMMIG_LINK_CONNECT when the guest does not run here, or has everything
   */
  async awaitAnotherSource(): Promise<void> {
    if (!this.#phases.hasSwitched || this.#phases.isLoading || this.#end.isDecided)
      throw new RelayError('VMMIG_LINK_CONNECT', 'the destination relay has no use for another source now');
    await this.#link.awaitAnother();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#end.isDecided) this.#fail(new RelayError('VMMIG_RELAY_ABORTED', 'the migration was aborted'));
    await this.#link[Symbol.asyncDispose]();
    await this.#guest?.stream[Symbol.asyncDispose]();
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
        if (this.#phases.isLoading) await this.#letLoad(guest);
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

  /** While QEMU loads the guest nothing is to keep it from that, unless it waits for what comes. */
  async #letLoad({ stream }: Guest): Promise<void> {
    while (this.#phases.isLoading && !this.#end.isDecided && stream.faults?.waiting === 0) await delay(loadPollMs);
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
    const { head, section, blocks } = parseCapture(payload);
    if (this.#guest !== null) return this.#beginAgain(this.#guest, blocks);
    this.#sentAhead.useBlocks(pagesOfBlocks(blocks));
    const pageSizes = await this.#options.qemuListens;
    this.#blocks = blocksThere(blocks, pageSizes);
    const begin = { head, ramSection: section, blocks: this.#blocks };
    const stream = await this.#openStream(begin);
    if (this.#end.isDecided) return await stream[Symbol.asyncDispose]();
    this.#counters.totalPages = totalPagesOf(blocks);
    const takesOver = this.#options.takesOver === true;
    this.#guest = this.#assemble(stream, takesOver);
    if (!takesOver) return stream.begin(begin);
    this.#tellPlaced(this.#guest);
    this.#handlers.loaded();
  }

  /** @param isLate - the guest runs, and what it has is not told any more */
  #assemble(stream: PostcopyStream, isLate: boolean): Guest {
    const link = this.#link.current!;
    this.#guestLink = link;
    return assembleGuest(stream, this.#blocks, {
      link,
      phases: this.#phases,
      digester: this.#digester,
      counters: this.#counters,
      disks: this.#options.disks,
      held: this.#sentAhead.held,
      storageSilent: (error) => this.#fail(new RelayError('VMMIG_RELAY_STORAGE', error.message, error)),
      takesOver: isLate,
    });
  }

  /** Another source relay tells what memory there is: it is told what QEMU has, and will tell all the rest. */
  #beginAgain({ stream, disks }: Guest, blocks: Capture['blocks']): void {
    if (this.#link.current === this.#guestLink)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay named its blocks twice');
    requireSameBlocks(blocks, this.#blocks);
    disks.stop();
    this.#sentAhead.held.clear();
    const guest = this.#assemble(stream, true);
    this.#guest = guest;
    this.#faults.forget();
    this.#tellPlaced(guest);
    for (const run of stream.awaitedRuns()) this.#faults.raise(run, guest, this.#link);
    this.#handlers.resumed?.(0);
  }

  async #openStream(begin: PostcopyBegin): Promise<PostcopyStream> {
    const { qemuSocketPath, takesOver, mayPreempt = false } = this.#options;
    const handlers: PostcopyHandlers = {
      fault: (run) => this.#faults.raise(run, this.#guest!, this.#link),
      lost: (error) => this.#fail(error),
      progress: () => this.#guest?.disks.readOn(),
    };
    // What is sent is not forgotten: the source would not send it again.
    const options = { collectorBytes: Infinity };
    if (takesOver === true) return await PostcopyStream.resume(qemuSocketPath, handlers, begin, options);
    return await PostcopyStream.connect(qemuSocketPath, handlers, { ...options, mayPreempt });
  }

  /** The guest goes on: the source is told what QEMU has, and tells the rest. */
  #tellPlaced({ stream, disks }: Guest): void {
    disks.readLess();
    this.#phases.hasSwitched = true;
    for (const [at, payload] of encodePlaced(stream.placedRuns()).entries())
      this.#link.send(frameType.placed, at, payload);
  }

  /** The source lets go of the guest: QEMU loads it, and from now on asks for the memory that it lacks. */
  #switchOver({ pagesOfBlock, stream, disks, receipts, placement }: Guest): void {
    if (this.#phases.hasSwitched) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay switched over twice');
    for (const run of this.#departure.remote(pagesOfBlock)) placement.remote(run);
    placement.dropUntold();
    disks.readLess();
    this.#phases.hasSwitched = true;
    this.#link.switched();
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
    this.#link.send(frameType.rootResult, 0, Buffer.of(isEqual ? 1 : 0));
    if (!isEqual) throw new RelayError('VMMIG_RELAY_VERIFY', "the memory put together here is not the source's");
    if (!isWell)
      throw new RelayError('VMMIG_RELAY_QEMU', 'the destination QEMU says that it could not take all memory');
    this.#end.reach();
  }

  #hangUp(message: string): void {
    this.#link.send(frameType.failure, 0, Buffer.from(message));
    void this.#link.close();
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
