/** How the guest leaves: QEMU sets out, goes through its memory, and stops it when it is allowed to. */
import { type GuestInspection, HypervisorError, touchedPages, watchForEnd } from '../hypervisor/index.js';
import type { GuestMemory } from '../relay/source/filePages.js';
import { eventTimeMs } from './clock.js';
import type { DomainDeparture, SourceGuest } from './guest/sourceGuest.js';
import type { Params } from './protocol.js';
import { ExpectedUseFinder } from './switching/expectedUse.js';
import type { SourceSwitch } from './switching/sourceSwitch.js';
import { untilAborted } from './untilAborted.js';

type DomainParams = NonNullable<Params<'source.start'>['domain']>;

/** QEMU is to keep iterating. Zero would end it at the first clean pass. */
const iterateDowntimeLimitMs = 1;
/** For what a guest has beside its memory, where that is in files: QEMU sends it in a moment, once it may. */
const filesDowntimeLimitMs = 50;
/** The longest that QEMU takes. */
export const finishDowntimeLimitMs = 2_000_000;

export interface Departing {
  readonly guest: SourceGuest;
  readonly inspection: GuestInspection;
  /** Where the relay listens for QEMU. */
  readonly streamPath: string;
  readonly directory: string;
  readonly credentials: { readonly migrationId: string; readonly key: Buffer };
  /** Null for a teleport. */
  readonly switching: SourceSwitch | null;
  /** The guest's memory, where it is in files: QEMU has next to nothing to copy, and would stop the guest at once. */
  readonly memory: GuestMemory | null;
}

export interface DepartureHandlers {
  /** QEMU has stopped the guest. */
  stopped(): void;
  /** QEMU, or its monitor, has gone before that. */
  lost(error: Error): void;
  /** Pages of the guest's memory that have ever been written to. */
  touched(pages: number | null): void;
}

export class SourceDeparture implements Disposable {
  readonly #what: Departing;
  readonly #handlers: DepartureHandlers;
  #tellIterating!: () => void;
  /** Resolves when QEMU's stream may be read, should there be one: it will not stop the guest by itself. */
  readonly isIterating = new Promise<void>((resolve) => {
    this.#tellIterating = resolve;
  });
  #stopped: Promise<number> | null = null;
  #hasSetOut = false;
  /** Of a switch. */
  readonly #expected: ExpectedUseFinder | null;
  /** Resolves when what the guest will look at first has been looked for once. */
  #found: Promise<void> = Promise.resolve();
  #isDomain = false;

  constructor(what: Departing, handlers: DepartureHandlers) {
    this.#what = what;
    this.#handlers = handlers;
    const { guest, inspection, memory, switching } = what;
    this.#expected =
      switching === null ? null : new ExpectedUseFinder(guest.patientMonitor, inspection, memory?.blocks ?? []);
  }

  /** When the guest was stopped, by this host's clock. To be asked for once it has set out. */
  get stoppedAtMs(): Promise<number> {
    return this.#stopped!;
  }

  /** Lets QEMU migrate into the relay. @param answered - by the guest's agent, or not waited for any more */
  async begin(params: Params<'source.start'>, answered: Promise<void>, signal: AbortSignal): Promise<void> {
    try {
      await this.#setOut(params, answered, signal);
    } finally {
      this.#tellIterating();
    }
  }

  async #setOut(
    { domain, mayThrottle }: Params<'source.start'>,
    answered: Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const { guest, inspection, memory, streamPath, switching } = this.#what;
    const isInFiles = memory !== null;
    void touchedPages(inspection.process.pid, inspection.memory.blocks).then((pages) => this.#handlers.touched(pages));
    const leaves = this.#domainDeparture(domain ?? null);
    // It is to be stopped as soon as that can be, or is held back by the relay.
    if (switching !== null) this.#tellIterating();
    this.#stopped = guest.monitor.waitFor('STOP').then(eventTimeMs);
    this.#stopped.then(
      () => this.#handlers.stopped(),
      (error) => this.#handlers.lost(error),
    );
    this.#isDomain = leaves !== null;
    if (isInFiles && this.#isDomain) void this.#watchProcess();
    const downtimeLimitMs = isInFiles ? filesDowntimeLimitMs : iterateDowntimeLimitMs;
    await guest.prepare({ streamPath, isInFiles, downtimeLimitMs, mayThrottle, domain: leaves }, signal);
    this.#tellIterating();
    if (!isInFiles) {
      // QEMU's setting out holds up the guest, and so its answer, for longer than it saves. libvirt is busy for longer than the
      // agent before it has QEMU set out; the stream waits for the answer at the relay.
      if (!this.#isDomain) await untilAborted(answered, signal);
      await guest.setOut(signal);
    }
    switching?.departs(guest.letGo());
  }

  /** Before QEMU streams anything libvirt does not tell that it has ended. */
  async #watchProcess(): Promise<void> {
    const over = new AbortController();
    this.#stopped!.catch(() => {}).finally(() => over.abort());
    try {
      await watchForEnd(this.#what.inspection.process, over.signal);
      this.#handlers.lost(new HypervisorError('VMMIG_SOURCE_MIGRATION', "the guest's QEMU has ended"));
    } catch {
      // It has been stopped.
    }
  }

  #domainDeparture(domain: DomainParams | null): DomainDeparture | null {
    if (domain === null) return null;
    const { tunnel, destinationUri, ...more } = domain;
    const { credentials, directory, switching } = this.#what;
    const to =
      tunnel === null ? { uri: destinationUri! } : { endpoint: tunnel, credentials, opensAsUsual: tunnel.opensAsUsual };
    return { ...more, to, directory, postcopy: switching !== null };
  }

  /** From now on QEMU stops the guest as soon as the rest takes no longer than this at memory speed. */
  async allowDowntime(downtimeLimitMs: number, signal: AbortSignal): Promise<void> {
    const { guest, switching, memory } = this.#what;
    switching?.permit();
    if (memory === null || downtimeLimitMs > filesDowntimeLimitMs) await guest.allowDowntime(downtimeLimitMs, signal);
    if (memory !== null && !this.#hasSetOut) {
      this.#hasSetOut = true;
      const { relay } = switching!;
      // Asked through libvirt, QEMU takes its time: what was found a moment ago has to do.
      const found = this.#isDomain ? this.#found : this.#expectUse(signal);
      await Promise.all([relay.warmedUp(signal), found]);
      relay.expectUse(this.#expected!.latest);
      await relay.endAhead(signal);
      await guest.setOut(signal);
    } else switching?.relay.mayStop();
  }

  /** Of a switch: looks for what the guest will touch first, as long as there is time. @param watches - what it uses, too */
  async findUse(watches: boolean): Promise<void> {
    try {
      const found = this.#expectUse();
      this.#found = found.catch(() => {});
      await found;
      if (watches && (await this.#expected!.watch())) this.#what.switching!.relay.expectUse(this.#expected!.latest);
    } catch {
      // It costs the guest some waiting.
    }
  }

  [Symbol.dispose](): void {
    this.#expected?.[Symbol.dispose]();
  }

  async #expectUse(signal?: AbortSignal): Promise<void> {
    await this.#expected!.find(signal);
    this.#what.switching!.relay.expectUse(this.#expected!.latest);
  }
}
