/** What the source's service tells of a migration about twenty times a second: QEMU's view, and the relay's. */
import { type MigrationState, migrationState, type QmpMonitor } from '../hypervisor/index.js';
import type { SourceRelay } from '../relay/source/sourceRelay.js';
import type { SwitchSource } from '../relay/source/switchSource.js';
import type { Ahead } from './memoryAhead.js';
import type { SourceSample } from './protocol.js';

export interface Sampled {
  readonly relay: SourceRelay | SwitchSource;
  /** Null once QEMU has ended: after a switch there is still a lot to tell. */
  readonly monitor: QmpMonitor | null;
  /** Of a switch; the same as `relay`. */
  readonly switching: SwitchSource | null;
  /** Of a switch, where the guest's memory is kept in files. */
  readonly isInFiles: boolean;
  /** Of a teleport; null while it is not known. */
  readonly ahead: Ahead | null;
}

const intervalMs = 50;

export class SourceSampling {
  readonly #look: () => Sampled;
  readonly #notify: (sample: SourceSample) => void;
  #timer: NodeJS.Timeout | null = null;
  #migration: MigrationState | null = null;
  #touchedPages: number | null = null;
  #isStopped = false;
  #isAsking = false;

  /** @param look - not called before `start` */
  constructor(look: () => Sampled, notify: (sample: SourceSample) => void) {
    this.#look = look;
    this.#notify = notify;
  }

  start(): void {
    this.#timer = setInterval(() => void this.#sample(), intervalMs);
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  /** Pages of the guest's memory that have ever been written to. */
  touched(pages: number | null): void {
    this.#touchedPages = pages;
  }

  /** QEMU has stopped the guest: told at once. */
  guestStopped(): void {
    this.#isStopped = true;
    this.#tell();
  }

  /** What QEMU said last, where somebody has asked. */
  heard(migration: MigrationState | null): void {
    this.#migration = migration ?? this.#migration;
  }

  view(): SourceSample {
    const { relay, switching, isInFiles, ahead } = this.#look();
    const ram = this.#migration?.ram;
    const moving = switching?.state;
    return {
      takenAtMs: performance.now(),
      ...relay.state,
      status: this.#migration?.status ?? 'none',
      remainingBytes: ram?.remainingBytes ?? 0,
      dirtyBytesPerSecond: ram?.dirtyBytesPerSecond || null,
      dirtySyncCount: ram?.passes ?? 0,
      qemuSentBytes: ram?.transferredBytes ?? 0,
      qemuBytesPerSecond: (ram?.bandwidthBps ?? 0) / 8,
      throttlePercent: this.#migration?.throttlePercent ?? 0,
      isStopped: this.#isStopped,
      touchedPages: this.#touchedPages,
      ahead,
      remaining: moving?.remaining ?? null,
      capture: isInFiles ? 'memory file' : 'stream',
      isSentAhead: moving?.isSentAhead ?? false,
      heldBackPages: moving?.heldBackPages ?? 0,
      expectedUnsentPages: moving?.expectedUnsentPages ?? null,
    };
  }

  async #sample(): Promise<void> {
    const { monitor } = this.#look();
    // Through libvirt it may take longer than until the next time.
    if (monitor !== null && !this.#isAsking) {
      this.#isAsking = true;
      // The relay notices when QEMU is gone, and says so in `finished`.
      this.#migration = await migrationState(monitor).catch(() => this.#migration);
      this.#isAsking = false;
    }
    this.#tell();
  }

  #tell(): void {
    if (this.#timer !== null) this.#notify(this.view());
  }
}
