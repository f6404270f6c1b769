/**
 * What is on its way to QEMU: a queue in front of the socket, so that an answer to a fault can overtake what waits.
 *
 * Only so much is handed to the socket at a time; what is there, and in the kernel's buffer behind it, nothing overtakes.
 */
import type { Socket } from 'node:net';
import { setSendBuffer } from '../../socketOptions.js';

/** Whole sections of the stream, which may change places with other pieces unless the order is said to matter. */
export interface Piece {
  readonly bytes: Buffer;
  /** Pages in it, as triples of block, first page and count. */
  readonly runs: readonly number[];
  /** Called when QEMU, or the kernel on its behalf, has taken the bytes. */
  taken: () => void;
}

export interface OutboxLimits {
  /** Handed to the socket and not taken yet. */
  readonly inFlightBytes: number;
  /** Asked of the kernel. */
  readonly sendBufferBytes: number;
}

interface Watcher {
  /** Pieces that must be taken before. */
  readonly pieces: Set<Piece>;
  readonly call: () => void;
}

export class Outbox {
  readonly #socket: Socket;
  readonly #onProgress: () => void;
  #limits: OutboxLimits;
  #queue: Piece[] = [];
  #next = 0;
  readonly #inFlight = new Set<Piece>();
  #queuedBytes = 0;
  #inFlightBytes = 0;
  #watchers: Watcher[] = [];
  #waitingForRoom: (() => void)[] = [];
  bytesWritten = 0;

  constructor(socket: Socket, limits: OutboxLimits, onProgress: () => void) {
    this.#socket = socket;
    this.#onProgress = onProgress;
    this.#limits = limits;
    setSendBuffer(socket, limits.sendBufferBytes);
    socket.once('close', () => this.#admit());
  }

  /** What neither QEMU nor the kernel has taken yet. */
  get backlogBytes(): number {
    return this.#queuedBytes + this.#inFlightBytes;
  }

  /** Waits until there is room for more, or the socket is gone. */
  async drained(): Promise<void> {
    if (this.#hasRoom || this.#socket.destroyed) return;
    await new Promise<void>((resolve) => this.#waitingForRoom.push(resolve));
  }

  limit(limits: OutboxLimits): void {
    this.#limits = limits;
    setSendBuffer(this.#socket, limits.sendBufferBytes);
  }

  /** At the end of the queue. */
  push(piece: Piece): void {
    this.#queue.push(piece);
    this.#queuedBytes += piece.bytes.length;
    this.#pump();
  }

  /** Before everything that waits. */
  urgent(piece: Piece): void {
    this.#write(piece);
  }

  /** Writes all that waits, whatever the limits. */
  flush(): void {
    while (this.#next < this.#queue.length) this.#shift();
  }

  /** Writes a piece that waits and has that page at once, and gives it; null when none waits. */
  promote(block: number, page: number): Piece | null {
    for (let at = this.#next; at < this.#queue.length; at++) {
      const piece = this.#queue[at]!;
      if (!holds(piece.runs, block, page)) continue;
      this.#queue.splice(at, 1);
      this.#queuedBytes -= piece.bytes.length;
      this.#write(piece);
      return piece;
    }
    return null;
  }

  /** Calls back, once, when all that is under way now has been taken. */
  whenTaken(call: () => void): void {
    const pieces = new Set([...this.#inFlight, ...this.#queue.slice(this.#next)]);
    if (pieces.size === 0) call();
    else this.#watchers.push({ pieces, call });
  }

  #pump(): void {
    while (this.#next < this.#queue.length && this.#inFlightBytes < this.#limits.inFlightBytes) this.#shift();
  }

  #shift(): void {
    const piece = this.#queue[this.#next++]!;
    this.#queuedBytes -= piece.bytes.length;
    if (this.#next === this.#queue.length) {
      this.#queue = [];
      this.#next = 0;
    }
    this.#write(piece);
  }

  #write(piece: Piece): void {
    if (this.#socket.destroyed) return;
    this.#inFlight.add(piece);
    this.#inFlightBytes += piece.bytes.length;
    this.bytesWritten += piece.bytes.length;
    this.#socket.write(piece.bytes, (error) => {
      // A socket that is destroyed calls back without an error for what it has dropped.
      if (!error && !this.#socket.destroyed) this.#written(piece);
    });
  }

  #written(piece: Piece): void {
    this.#inFlight.delete(piece);
    this.#inFlightBytes -= piece.bytes.length;
    piece.taken();
    this.#pump();
    if (this.#watchers.length > 0) this.#notify(piece);
    if (this.#hasRoom) this.#admit();
    this.#onProgress();
  }

  get #hasRoom(): boolean {
    return this.backlogBytes < 2 * this.#limits.inFlightBytes;
  }

  #admit(): void {
    for (const resolve of this.#waitingForRoom.splice(0)) resolve();
  }

  #notify(piece: Piece): void {
    const watchers = this.#watchers;
    this.#watchers = watchers.filter(({ pieces }) => !pieces.delete(piece) || pieces.size > 0);
    for (const { pieces, call } of watchers) if (pieces.size === 0) call();
  }
}

function holds(runs: readonly number[], block: number, page: number): boolean {
  for (let at = 0; at < runs.length; at += 3) {
    if (runs[at] === block && runs[at + 1]! <= page && page < runs[at + 1]! + runs[at + 2]!) return true;
  }
  return false;
}
