/** Pings: shows the peer of a durable link that this side is alive, measures the round trip, and wakes its owner. */
import { RelayError } from '../errors.js';
import { frameType } from './frames.js';

export interface HeartbeatHandlers {
  /** Sends a ping or a pong without waiting behind bulk data. */
  send(type: number, payload: Buffer): void;
  measured(elapsedMs: number, nowMs: number): void;
  /** Four times a second, unless this process stood still meanwhile. */
  beat(nowMs: number): void;
  /** Whether bulk data is under way, which could lengthen the round trip. */
  isBusy(): boolean;
}

const beatMs = 250;
/** A beat this late says that this process stood still, not that the peer is silent. */
const lateBeatMs = 500;
const pingIntervalMs = 500;
/** While bulk data is under way, the round trip is measured as often as this. */
const minBusyMs = 5;
const maxBusyMs = 20;
/** Pings: what was late once or twice does not count. */
const recentPings = 4;

export class Heartbeat {
  readonly #handlers: HeartbeatHandlers;
  readonly #timer: NodeJS.Timeout;
  #busyTimer: NodeJS.Timeout | null = null;
  #rttMs = 0;
  readonly #recentMs: number[] = [];
  #beatAtMs = performance.now();
  #pingedAtMs = 0;

  constructor(handlers: HeartbeatHandlers) {
    this.#handlers = handlers;
    this.#timer = setInterval(() => this.#beat(), beatMs);
    this.#timer.unref();
  }

  /** The smallest; 0 before the first. */
  get rttMs(): number {
    return this.#rttMs;
  }

  /** The smallest of the last few, which queues may have made longer; 0 before the first. */
  get recentRttMs(): number {
    return this.#recentMs.length === 0 ? 0 : Math.min(...this.#recentMs);
  }

  /** The way has become longer: what was measured before says nothing of it. */
  forgetRtt(): void {
    this.#rttMs = this.recentRttMs;
  }

  ping(): void {
    const payload = Buffer.alloc(8);
    this.#pingedAtMs = performance.now();
    payload.writeDoubleBE(this.#pingedAtMs);
    this.#handlers.send(frameType.ping, payload);
  }

  /** Answers a ping. An empty one only shows that the peer is there. */
  heard(payload: Buffer): void {
    if (payload.length === 0) return;
    if (payload.length !== 8) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the other relay sent a malformed ping');
    this.#handlers.send(frameType.pong, payload);
  }

  pong(payload: Buffer): void {
    if (payload.length !== 8) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the other relay sent a malformed pong');
    const nowMs = performance.now();
    const elapsedMs = nowMs - payload.readDoubleBE(0);
    if (!(elapsedMs >= 0)) return;
    if (this.#rttMs === 0 || elapsedMs < this.#rttMs) this.#rttMs = elapsedMs;
    if (this.#recentMs.push(elapsedMs) > recentPings) this.#recentMs.shift();
    this.#handlers.measured(elapsedMs, nowMs);
  }

  /** Bulk data was sent. */
  busy(): void {
    this.#busyTimer ??= setTimeout(
      () => {
        this.#busyTimer = null;
        if (!this.#handlers.isBusy()) return;
        this.ping();
        this.busy();
      },
      Math.min(maxBusyMs, Math.max(minBusyMs, this.#rttMs / 4)),
    );
  }

  stop(): void {
    clearInterval(this.#timer);
    if (this.#busyTimer !== null) clearTimeout(this.#busyTimer);
  }

  #beat(): void {
    const nowMs = performance.now();
    const isLate = nowMs - this.#beatAtMs > lateBeatMs;
    this.#beatAtMs = nowMs;
    if (isLate) return;
    if (nowMs - this.#pingedAtMs > pingIntervalMs - beatMs / 2) this.ping();
    this.#handlers.beat(nowMs);
  }
}
