/**
 * The source relay of a switch. It takes the guest's memory from QEMU at memory speed, and sends it as fast as the link
 * takes it, before the guest has moved and after. Once the guest has stopped it tells what is still to come, then hands
 * over the device state and, when its owner says so, the permission to run. From then on it serves the guest at the
 * destination: what that asks for first, what is near to it next, and then all the rest.
 */
import { newCounters } from '../counters.js';
import { pageBytes, RunDigester } from '../digest.js';
import { RelayError } from '../errors.js';
import type { Endpoint } from '../link/connection.js';
import { type Frame, frameType } from '../link/frames.js';
import { peerText } from '../link/peerText.js';
import type { LoggedCapture } from '../store/captureLog.js';
import { IncomingStream } from './incomingStream.js';
import { encodeMemory } from './memoryFrame.js';
import type { ReadableMemory } from './sentAhead.js';
import { Conclusion } from './switch/conclusion.js';
import { Delivery } from './switch/delivery.js';
import { GuestCapture } from './switch/guestCapture.js';
import { HoldBack, heldBackReadBytes } from './switch/holdBack.js';
import type { ExpectedUse } from './switch/hotPages.js';
import type {
  SwitchSourceHandlers,
  SwitchSourceOptions,
  SwitchSourceState,
  SwitchTakeOverOptions,
} from './switch/options.js';
import { newPhases } from './switch/phases.js';
import { SwitchLink } from './switch/switchLink.js';
import { UsedAhead } from './switch/usedAhead.js';
import type { CacheMap } from './teleportMap.js';

export type { ExpectedUse } from './switch/hotPages.js';
export type {
  SwitchSourceHandlers,
  SwitchSourceOptions,
  SwitchSourceState,
  SwitchTakeOverOptions,
} from './switch/options.js';
export type { Remaining } from './switch/remaining.js';

/** For QEMU to go on with while this process does something else; it is read within a few milliseconds. */
const capturedAheadBytes = 4 * 1024 * 1024;

export class SwitchSource implements AsyncDisposable {
  /** Resolves when the destination has everything and both sides have found it equal; rejects with a `RelayError`. */
  readonly finished: Promise<void>;
  readonly #options: SwitchTakeOverOptions;
  readonly #handlers: SwitchSourceHandlers;
  readonly #counters = newCounters();
  readonly #phases = newPhases();
  readonly #link: SwitchLink;
  readonly #delivery: Delivery;
  readonly #capture: GuestCapture;
  readonly #stream: IncomingStream;
  readonly #end: Conclusion;
  readonly #holdBack: HoldBack;
  /** Of a guest whose memory comes through QEMU's stream. */
  #usedAhead: UsedAhead | null = null;
  #expected: ExpectedUse | null = null;
  #cacheMap: CacheMap | null = null;
  #isReconnecting = false;

  private constructor(options: SwitchTakeOverOptions, handlers: SwitchSourceHandlers) {
    this.#options = options;
    this.#handlers = handlers;
    const digester = new RunDigester(options.credentials.key);
    const counters = this.#counters;
    const phases = this.#phases;
    const link = new SwitchLink(options, {
      frame: (frame) => this.#hear(frame),
      drained: () => this.#deliver(),
      interrupted: (cause) => handlers.interrupted?.(cause),
      resumed: (gapMs) => this.#resumed(gapMs),
      lost: (cause) => this.#lostLink(cause),
    });
    this.#link = link;
    this.#end = new Conclusion(link, options.memory);
    this.finished = this.#end.reached;
    this.#holdBack = new HoldBack(options.holdsBack === true && options.memory === null);
    const failed = (error: RelayError) => this.#fail(error);
    this.#delivery = new Delivery(
      options,
      { link, phases, counters, digester },
      { failed, hasEnded: () => this.#end.isDecided, acknowledged: () => this.#letQemuGoOn() },
    );
    const { files } = this.#delivery;
    this.#capture = new GuestCapture(
      options,
      files,
      link,
      { counters, digester },
      {
        opened: (store, blocks) => this.#delivery.open(store, blocks),
        ramEnded: () => {
          phases.ramEnded = true;
        },
      },
    );
    const streamed = {
      decoded: () => {
        this.#deliver();
        return this.#mayRead;
      },
      ended: () => this.#endOfStream(),
      failed,
    };
    this.#stream = new IncomingStream(this.#capture.parts, counters, streamed, options);
  }

  /** Listens for QEMU, whose stream waits for `begin`. */
  static async listen(options: SwitchSourceOptions, handlers: SwitchSourceHandlers): Promise<SwitchSource> {
    const relay = new SwitchSource(options, handlers);
    await relay.#stream.listen(options.socketPath, options.holdsBack === true ? heldBackReadBytes : undefined);
    return relay;
  }

  /**
   * Takes the place of a relay that died after `go`, of a guest whose memory is kept in files: from there, and from what
   * that relay has noted of the rest. `reconnect` is to follow.
   *
   * @throws RelayError, StoreError when what was noted is not of this guest
   */
  static async takeOver(
    options: SwitchTakeOverOptions,
    handlers: SwitchSourceHandlers,
    logged: LoggedCapture,
    signal: AbortSignal,
  ): Promise<SwitchSource> {
    const relay = new SwitchSource(options, handlers);
    try {
      relay.#capture.adopt(logged);
      await relay.#delivery.files!.survey(signal);
    } catch (thrown) {
      await relay[Symbol.asyncDispose]();
      throw thrown;
    }
    Object.assign(relay.#phases, { mayStop: true, hasStopped: true, ramEnded: true, hasGone: true });
    relay.#link.switched();
    relay.#link.favourLatency();
    return relay;
  }

  /** Meets the destination relay. */
  async connect(endpoint: Endpoint): Promise<void> {
    this.#link.use(await this.#link.dial(endpoint), endpoint);
    if (this.#end.isDecided) return await this.#link.close();
    this.#link.ping();
    const { ahead } = this.#delivery;
    if (ahead === null) return;
    this.#link.sendOrdered(frameType.memory, encodeMemory(this.#options.memory!.blocks));
    ahead.begin();
  }

  /**
   * Meets a destination relay that has taken the place of the one before; from `go` on. It says what QEMU has already,
   * and is told all the rest again.
   *
   * @throws RelayError VMMIG_LINK_… when it cannot be met: everything is as before then
   */
  async reconnect(endpoint: Endpoint): Promise<void> {
    if (this.#link.isConnectedTo(endpoint)) return;
    if (!this.#phases.hasGone || this.#end.isDecided || this.#isReconnecting)
      throw new RelayError('VMMIG_LINK_CONNECT', 'the source relay has no use for another link now');
    this.#isReconnecting = true;
    try {
      this.#link.use(await this.#link.dial(endpoint), endpoint);
      if (this.#end.isDecided) return await this.#link.close();
      this.#end.restart();
      this.#delivery.beginAgain();
      this.#capture.sendBlocks();
    } finally {
      this.#isReconnecting = false;
    }
  }

  /**
   * Sends some of the guest's memory before QEMU does, where that is what brings it: once the relays have met.
   *
   * @throws PagerError when it cannot be read; what has been sent is not wrong then
   */
  async sendAhead(memory: ReadableMemory): Promise<void> {
    // Once QEMU has named the guest's memory, nothing else does.
    if (this.#end.isDecided || this.#options.memory !== null || this.#capture.hasBegun) return;
    const { compress } = this.#options;
    const ahead = new UsedAhead(memory, this.#link, { compress, done: () => this.#deliver() });
    this.#usedAhead = ahead;
    this.#capture.useAhead(ahead.pages);
    if (this.#expected !== null) ahead.favour(this.#expected);
    if (this.#cacheMap !== null) ahead.know(this.#cacheMap);
    await ahead.begin();
  }

  /** Somebody who has asked QEMU there says that the destination has everything; its relay could not tell any more. */
  conclude(): void {
    if (this.#end.succeed()) void this.#link.close();
  }

  /** Lets QEMU's stream in, once the relay is connected and has its cache map. */
  begin(): void {
    this.#stream.begin();
    this.#delivery.ahead?.beginAll();
  }

  /** May be called again, with what is known by then. */
  expectUse(expected: ExpectedUse): void {
    this.#delivery.expectUse(expected);
    this.#expected = expected;
    this.#usedAhead?.favour(expected);
  }

  /** QEMU goes on, as the link takes it: it stops the guest when next to nothing is left. */
  keepUp(): void {
    this.#holdBack.keepUp();
    this.#letQemuGoOn();
  }

  /** QEMU may stop the guest at any time: little is to queue before what that then waits for. */
  mayStop(): void {
    const { qemuPid } = this.#options;
    if (!this.#phases.mayStop && qemuPid !== undefined) this.#stream.widen(qemuPid, capturedAheadBytes);
    this.#phases.mayStop = true;
    this.#holdBack.letGo();
    this.#letQemuGoOn();
  }

  /** QEMU says that the guest has stopped: what its memory holds follows, and nothing else is to be in its way. */
  guestStopped(): void {
    this.#phases.hasStopped = true;
    this.#usedAhead?.[Symbol.dispose]();
    this.#letQemuGoOn();
  }

  get state(): SwitchSourceState {
    const { store, remaining, ahead } = this.#delivery;
    const heldBackPages = this.#holdBack.heldBackPages(this.#capture.leftOfPass);
    return {
      ...this.#link.state,
      counters: this.#counters,
      ramEnded: this.#phases.ramEnded,
      backlogBytes: remaining.bytesPages * pageBytes,
      framedBytes: null,
      opaqueSections: [],
      remaining,
      storedBytes: store?.heldBytes ?? 0,
      spilledBytes: store?.spilledBytes ?? 0,
      isSentAhead: ahead?.isAllSent ?? false,
      heldBackPages,
      expectedUnsentPages: this.#delivery.expectedUnsent(heldBackPages > 0 || this.#phases.ramEnded),
    };
  }

  /** Replaces the cache map: pages that QEMU sends from now on are looked up in the new one. */
  setCacheMap(map: CacheMap): void {
    this.#capture.setCacheMap(map);
    this.#cacheMap = map;
    this.#usedAhead?.know(map);
  }

  /** Resolves when what is sent ahead has made the line known: what the guest then waits for crosses it at full speed. */
  async warmedUp(signal: AbortSignal): Promise<void> {
    this.#delivery.files?.hintFavoured();
    await this.#delivery.ahead!.warmedUp(signal);
  }

  /**
   * QEMU is about to stop the guest, whose memory is kept in files: what is sent ahead ends, so that nothing queues before
   * what the guest then waits for. Resolves when the line is free.
   */
  async endAhead(signal: AbortSignal): Promise<void> {
    await this.#delivery.ahead!.end(signal);
  }

  /**
   * Permits the destination to run the guest; after `ready`.
   * @returns false when the link was lost before, and the destination will never know
   */
  go(): boolean {
    if (this.#end.isDecided || this.#phases.hasGone) return this.#phases.hasGone;
    this.#phases.hasGone = true;
    this.mayStop();
    this.#link.switched();
    this.#link.sendOrdered(frameType.go, Buffer.alloc(0));
    // While the guest is loaded there, only what makes its first steps shorter.
    this.#delivery.sendWanted();
    return true;
  }

  /** Gives up: the link and QEMU's connection are closed. Before QEMU has ended its stream, its migration fails by that. */
  abort(): void {
    this.#fail(new RelayError('VMMIG_RELAY_ABORTED', 'the migration was aborted'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#end.isDecided) this.abort();
    this.#usedAhead?.[Symbol.dispose]();
    await this.#delivery.ahead?.[Symbol.asyncDispose]();
    await this.#stream[Symbol.asyncDispose]();
    await this.#link.close();
    this.#capture[Symbol.dispose]();
    await this.#delivery[Symbol.asyncDispose]();
  }

  /** QEMU has sent everything: the guest is stopped, and this is all that keeps it from running at the destination. */
  #endOfStream(): void {
    this.#usedAhead?.[Symbol.dispose]();
    // Whoever waits for QEMU's word may go on meanwhile: that it is complete decides nothing.
    this.#stream.accept();
    this.#delivery.ahead?.stop();
    this.#capture.finish();
    this.#capture.sendEnd(this.#delivery.sendFirst(this.#capture.written));
    this.#handlers.ready();
  }

  #deliver(): void {
    if (this.#usedAhead?.isFirst) this.#usedAhead.pump();
    else this.#delivery.run();
  }

  #hear(frame: Frame): void {
    if (this.#usedAhead?.acknowledged(frame)) return;
    if (this.#delivery.hear(frame)) return this.#compareIfAllIsThere();
    switch (frame.type) {
      case frameType.running:
        if (!this.#phases.hasGone)
          throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination runs what it has no permission to run');
        this.#phases.isRunning = true;
        this.#link.favourLatency();
        this.#delivery.sendAll();
        this.#compareIfAllIsThere();
        return this.#handlers.running();
      case frameType.refused:
        return this.#handlers.refused(peerText(frame.payload));
      case frameType.rootResult:
        return this.#compared(frame.payload[0] === 1);
      case frameType.failure: {
        const message = `the destination relay gave up: ${peerText(frame.payload)}`;
        return this.#link.fail(new RelayError('VMMIG_RELAY_QEMU', message));
      }
      default:
        throw new RelayError('VMMIG_LINK_PROTOCOL', `the destination relay sent a frame of type ${frame.type}`);
    }
  }

  #letQemuGoOn(): void {
    if (this.#mayRead) this.#stream.resume();
  }

  /** A guest that is stopped while the link is cut would stand still for as long as that is. */
  get #mayRead(): boolean {
    if (!this.#link.isConnected && !this.#phases.hasStopped) return false;
    const { store } = this.#delivery;
    return store?.isFull !== true && this.#holdBack.mayRead(this.#capture.leftOfPass, store?.unsent.bytes ?? 0);
  }

  #resumed(gapMs: number): void {
    this.#letQemuGoOn();
    this.#handlers.resumed?.(gapMs);
  }

  #compareIfAllIsThere(): void {
    const { complete } = this.#delivery;
    if (this.#phases.isRunning && complete !== null) this.#end.compare(complete);
  }

  /** Before `go` that is the end. After it what the guest needs may be here and nowhere else. */
  #lostLink(cause: RelayError): void {
    if (!this.#phases.hasGone) this.#fail(cause);
    else if (!this.#end.isDecided) this.#handlers.lost?.(cause);
  }

  #compared(isEqual: boolean): void {
    this.#end.compared(isEqual);
    if (!isEqual) this.#fail(new RelayError('VMMIG_RELAY_VERIFY', "the destination's memory is not the source's"));
  }

  #fail(error: RelayError): void {
    if (!this.#end.fail(error)) return;
    this.#link.fail(error);
    this.#stream.close();
  }
}
