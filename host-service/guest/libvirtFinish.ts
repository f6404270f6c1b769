/**
 * What `virsh` says to the destination's daemon when a guest has been stopped for a switch, and is answered. libvirt's
 * own order is: the source's daemon lets go of the guest, virsh asks the destination's to run it (`Finish`), and what that
 * answers when the guest has *all* of its memory is told to the source's, which ends the guest there, or lets it run again
 * (`Confirm`). A switch has the same order, with its commit point in between:
 *
 *     virsh ── Finish ──> source's end ── … ──> destination's end ─ │ held until it has been decided ─> daemon
 *     virsh <── yes ───── source's end                              │    <────────── later, and nobody's business any more
 *
 * At the source `Finish` says that the daemon there has parked the guest: from then on it does nothing with it by itself,
 * not even when it is restarted. The yes is the source's end's own, as soon as the guest runs: libvirt would take every
 * other answer for a no, and a connection that breaks while memory is pulled for one, too.
 */
import type { Duplex } from 'node:stream';
import { encodeReply, finishReply, pong, type RemoteMessage, RemoteMessages } from '../../hypervisor/index.js';
import { type AnsweredOpening, PacedOpening } from './libvirtOpening.js';
import { LibvirtPreparation } from './libvirtPreparation.js';

export interface SaidAtSource {
  /** virsh. */
  readonly client: Duplex;
  /** Towards the destination. */
  readonly send: (raw: Buffer) => void;
  /** Null where nothing is known beforehand. */
  readonly opening: AnsweredOpening | null;
  readonly isInFiles: boolean;
  /** What one of them says cannot be followed. */
  readonly lost: () => void;
}

/** Between virsh and the connection to the destination. */
export class FinishAtSource {
  /** Resolves when the source's daemon has let go of the guest. */
  readonly asked: Promise<void>;
  readonly #options: SaidAtSource;
  #tellAsked!: () => void;
  #finish: RemoteMessage | null = null;
  #isAnswered = false;
  /** Of a guest whose memory is kept in files. */
  readonly preparation: LibvirtPreparation | null;

  constructor(options: SaidAtSource) {
    this.#options = options;
    const { client, isInFiles, lost } = options;
    this.asked = new Promise((resolve) => {
      this.#tellAsked = resolve;
    });
    this.preparation = isInFiles ? new LibvirtPreparation((raw) => client.write(raw)) : null;
    follow(client, lost, (message) => this.#take(message));
  }

  /** To be called once, when there is a way to the destination. */
  hear(remote: Duplex): void {
    const { client, opening, lost } = this.#options;
    follow(remote, lost, (message) => {
      if (this.#isAnswered || opening?.hasTold(message)) return;
      if (this.preparation !== null) this.preparation.fromDaemon(message);
      else client.write(message.raw);
    });
  }

  /** Whether libvirt waits for what becomes of the guest at the destination. */
  get isAsked(): boolean {
    return this.#finish !== null;
  }

  /** The guest runs at the destination. */
  confirm(domain: { readonly name: string; readonly uuid: string }): void {
    if (this.#finish === null || this.#isAnswered) return;
    this.#isAnswered = true;
    this.#options.client.write(finishReply(this.#finish, domain));
  }

  #take(message: RemoteMessage): void {
    const { client, opening, send } = this.#options;
    // virsh takes its leave of a daemon that is not asked any more.
    if (this.#isAnswered) {
      if (message.kind === 'call') client.write(encodeReply(message));
      return;
    }
    const known = opening?.answer(message) ?? null;
    if (known !== null) client.write(known);
    send(this.preparation?.toDaemon(message) ?? message.raw);
    if (message.kind !== 'finish') return;
    this.#finish = message;
    this.#tellAsked();
  }
}

/** Between the connection from the source and the daemon. */
export class FinishAtDestination {
  /** Resolves with the question whether to run the guest, which is held back. */
  readonly held: Promise<Buffer>;
  /** Resolves when the daemon has answered it: the guest has all of its memory, or the daemon is done with it. */
  readonly answered: Promise<void>;
  #tellHeld!: (message: Buffer) => void;
  #tellAnswered!: () => void;
  #serial: number | null = null;

  /** @param lost - what one of them says cannot be followed */
  constructor(remote: Duplex, daemon: Duplex, lost: () => void) {
    this.held = new Promise((resolve) => {
      this.#tellHeld = resolve;
    });
    this.answered = new Promise((resolve) => {
      this.#tellAnswered = resolve;
    });
    daemon.once('close', () => this.#tellAnswered());
    const opening = new PacedOpening((raw) => daemon.write(raw));
    follow(remote, lost, (message) => {
      if (message.kind !== 'finish') return opening.call(message);
      this.#serial = message.serial;
      this.#tellHeld(message.raw);
    });
    // A daemon that is not answered closes the connection, and ends a guest that does not have all of its memory with it.
    follow(daemon, lost, (message) => {
      if (message.kind === 'ping') return void daemon.write(pong());
      opening.heard(message);
      if (message.kind === 'answer' && message.serial === this.#serial) this.#tellAnswered();
      if (!remote.destroyed) remote.write(message.raw);
    });
  }
}

export function follow(from: Duplex, lost: () => void, take: (message: RemoteMessage) => void): void {
  const messages = new RemoteMessages();
  from.on('data', (bytes: Buffer) => {
    try {
      for (const message of messages.feed(bytes)) take(message);
    } catch {
      lost();
    }
  });
  from.resume();
}
