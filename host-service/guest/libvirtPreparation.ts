/**
 * The beginning of a switch of a domain whose memory is kept in files. The source's QEMU is to leave these out of its
 * stream, which it does not do for a migration by post-copy; the destination's is to run the guest before its memory is
 * there, which libvirt lets it for no other. So each daemon is told what it needs: `virsh` speaks of an ordinary migration,
 * and what it says to the destination's daemon becomes one by post-copy on its way.
 *
 *     virsh ── Prepare ──> source's end ── Prepare, by post-copy ──> … ──> daemon, which starts QEMU
 *     virsh <── yes ────── source's end │ held until the guest is to stop <──────── yes
 *
 * With next to nothing to copy the source's QEMU stops the guest as soon as it begins, and virsh has it begin as soon as
 * the destination is ready: that is told when it is time. Until then libvirt lets nobody else have the guest, so that what
 * QEMU is told to leave out it can leave out of nothing else.
 */
import { type RemoteMessage, withPostcopy } from '../../hypervisor/index.js';

export class LibvirtPreparation {
  /** Resolves when the destination's daemon is ready for the guest. */
  readonly ready: Promise<void>;
  #tellReady!: () => void;
  #serial: number | null = null;
  #held: RemoteMessage | null = null;
  #hasDeparted = false;
  readonly #pass: (raw: Buffer) => void;

  /** @param pass - to virsh */
  constructor(pass: (raw: Buffer) => void) {
    this.#pass = pass;
    this.ready = new Promise((resolve) => {
      this.#tellReady = resolve;
    });
  }

  /** Whether virsh waits for what has already come. */
  get isHolding(): boolean {
    return this.#held !== null;
  }

  /** What virsh says. @returns what the daemon is told */
  toDaemon(message: RemoteMessage): Buffer {
    if (message.kind === 'prepare') this.#serial = message.serial;
    return withPostcopy(message);
  }

  /** What the daemon says; what is not held is passed on. */
  fromDaemon(message: RemoteMessage): void {
    const isAnswer = message.kind === 'answer' && message.serial === this.#serial;
    if (!isAnswer || !message.isOk || this.#hasDeparted) return this.#pass(message.raw);
    this.#held = message;
    this.#tellReady();
  }

  /** The guest may go. */
  depart(): void {
    this.#hasDeparted = true;
    if (this.#held !== null) this.#pass(this.#held.raw);
    this.#held = null;
  }
}
