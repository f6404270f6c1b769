/**
 * How much bulk data may be under way, so that the link is used and urgent frames do not queue behind it at the
 * bottleneck, whatever congestion control TCP uses. Pure: it is told what happens and when.
 *
 * The round trip of small frames on a connection of their own, less the smallest seen, is the time that a frame spends
 * in queues. The window is moved to where bulk data keeps `target` of queue (the rule of FAST TCP, Wei et al. 2006):
 *
 *   window = 1/2 window + 1/2 (window x base / round trip + rate x target)
 *
 * At first it grows by half each round trip, until a queue shows.
 *
 * As long as nothing urgent is to overtake (`favourThroughput`), a queue of a quarter of the round trip is worth not
 * depending on times that a busy process makes long: the window is doubled each round trip until the rate does not grow
 * any more, and is then the best rate times the round trip, and that quarter (after BBR, Cardwell et al. 2016).
 */

import { Extreme } from './extreme.js';
import type { SendingWindow } from './sendingWindow.js';

export interface BulkWindowOptions {
  readonly minBytes?: number;
  readonly maxBytes?: number;
  /** Queueing to aim at. Default 0.7. */
  readonly targetMs?: number;
}

/** On a slow line, the queue of one slice of bulk data cannot be avoided. */
const minTargetBytes = 8192;
const initialBytes = 64 * 1024;
/** Of throughput: TCP begins with little by itself, and is in nobody's way. */
const initialThroughputBytes = 1024 * 1024;
/** The window's growth each round trip at first. It goes on for a round trip after the line is full. */
const startupGrowth = 0.5;
/** A queue of so much ends it: more than a busy process is late. */
const startupQueueMs = 3;
/**
 * The smallest of so many answers counts, and of those that came within the last round trip: one may be late because a
 * process was busy, and bulk data comes in bursts, between which the queue is empty.
 */
const recentAnswers = 4;
/** The smallest round trip and the best rate are forgotten after one to two of these. */
const baseMemoryMs = 600_000;
const rateMemoryMs = 500;
const throughputRateMemoryMs = 5000;
/** Of throughput: the window over what the rate needs without a queue, and time for a process to be late. */
const throughputGain = 1.25;
const lateMs = 5;
/** Rates that are not better by a quarter, one after the other: the line is full. */
const plateauRates = 3;
/** Rates are measured over at least so long. */
const minMeasureMs = 20;
/** Never below this share of what the recent rate needs without a queue. */
const floorShare = 0.75;
/** A queue that stays for so long though the window is at its floor is not ours: other traffic, or a longer way. */
const foreignQueueMs = 3000;
/** Of throughput, likewise: a round trip of so many that the window and a late process explain. */
const unexplained = 2;
/** Growth while there is no queue: the first time, doubled each time that there is still none, and at most. */
const probing = 1 / 16;
const maxProbing = 1 / 8;

export class BulkWindow implements SendingWindow {
  readonly needsRoundTrips = true;
  /** More would only make frames late that overtake. */
  readonly backlogBytes = 128 * 1024;
  /** The window is what bounds it. */
  readonly unsentBytes = null;
  readonly #minBytes: number;
  readonly #maxBytes: number;
  readonly #targetMs: number;
  #windowBytes = 0;
  #inFlightBytes = 0;
  #isStarting = true;
  #wasFull = false;
  readonly #recent: { readonly elapsedMs: number; readonly atMs: number }[] = [];
  #queueMs = 0;
  readonly #base = new Extreme(Math.min, baseMemoryMs);
  #rate = new Extreme(Math.max, rateMemoryMs);
  #favoursThroughput = false;
  #bestRate = 0;
  #flatRates = 0;
  #measuredBytes = 0;
  #measuredAtMs = -1;
  #measuredBefore = 0;
  #movedAtMs = -1;
  #probing = probing;
  #aboveFloorAtMs = -1;

  constructor(options: BulkWindowOptions = {}) {
    this.#minBytes = options.minBytes ?? 64 * 1024;
    this.#maxBytes = options.maxBytes ?? 48 * 1024 * 1024;
    this.#targetMs = options.targetMs ?? 0.7;
    this.#set(initialBytes);
  }

  get windowBytes(): number {
    return this.#windowBytes;
  }

  get inFlightBytes(): number {
    return this.#inFlightBytes;
  }

  /** What may be sent now. */
  get roomBytes(): number {
    return Math.max(0, this.#windowBytes - this.#inFlightBytes);
  }

  /** The smallest round trip of late; 0 before the first. */
  get baseMs(): number {
    return this.#base.value ?? 0;
  }

  /** What all answers of late spent in queues. */
  get queueMs(): number {
    return this.#queueMs;
  }

  /** Bytes a millisecond, the best of late. */
  get bytesPerMs(): number {
    return this.#rate.value ?? 0;
  }

  /** From now on, until `favourLatency`: to be called at the start. */
  favourThroughput(): void {
    this.#favoursThroughput = true;
    if (this.#isStarting) this.#set(this.#startBytes);
    this.#rate = new Extreme(Math.max, throughputRateMemoryMs);
  }

  /** From now on urgent frames are to overtake. What was learnt of the line stays known. */
  favourLatency(): void {
    if (!this.#favoursThroughput) return;
    this.#favoursThroughput = false;
    if (this.bytesPerMs === 0) return;
    this.#isStarting = false;
    this.#set(this.bytesPerMs * this.baseMs + this.#targetBytes);
  }

  sent(lengthBytes: number): void {
    this.#inFlightBytes += lengthBytes;
    if (this.#inFlightBytes >= this.#windowBytes - this.#minBytes / 2) this.#wasFull = true;
  }

  /** The other side has received so much more. */
  received(lengthBytes: number, nowMs: number): void {
    this.#inFlightBytes -= lengthBytes;
    this.#measuredBytes += lengthBytes;
    const growth = this.#favoursThroughput ? 1 : startupGrowth;
    if (this.#isStarting && this.#wasFull) this.#set(this.#windowBytes + lengthBytes * growth);
    if (this.#measuredAtMs < 0) {
      this.#measuredAtMs = nowMs;
      this.#measuredBytes = 0;
      return;
    }
    const elapsedMs = nowMs - this.#measuredAtMs;
    if (elapsedMs < Math.max(minMeasureMs, this.baseMs)) return;
    // What a busy process was late to tell of comes all at once: only what was measured twice counts.
    const measured = this.#measuredBytes / elapsedMs;
    const rate = this.#favoursThroughput ? Math.min(measured, this.#measuredBefore) : measured;
    this.#measuredBefore = measured;
    this.#rate.add(rate, nowMs);
    this.#measuredBytes = 0;
    this.#measuredAtMs = nowMs;
    if (this.#favoursThroughput) this.#followRate(rate);
  }

  #followRate(rate: number): void {
    if (rate > this.#bestRate * 1.25) {
      this.#bestRate = rate;
      this.#flatRates = 0;
    } else if (this.#wasFull && ++this.#flatRates >= plateauRates) this.#isStarting = false;
    if (!this.#isStarting) this.#set(throughputGain * this.bytesPerMs * (this.baseMs + lateMs));
    this.#wasFull = this.roomBytes < this.#minBytes / 2;
  }

  /** A small frame, that waited behind no bulk data on this host, was answered after so long. */
  roundTrip(elapsedMs: number, nowMs: number): void {
    this.#base.add(elapsedMs, nowMs);
    const recent = this.#recent;
    const { baseMs } = this;
    recent.push({ elapsedMs, atMs: nowMs });
    if (recent.length < recentAnswers) return;
    const sinceMs = nowMs - (this.#isStarting ? baseMs / 4 : baseMs);
    while (recent.length > recentAnswers && recent[0]!.atMs < sinceMs) recent.shift();
    const queueMs = recent.reduce((smallest, answer) => Math.min(smallest, answer.elapsedMs), Infinity) - baseMs;
    if (this.#favoursThroughput) return this.#suspectWay(baseMs, queueMs, nowMs);
    this.#queueMs = queueMs;
    if (this.#isStarting) {
      if (queueMs <= startupQueueMs) return;
      this.#isStarting = false;
      this.#set(this.bytesPerMs * baseMs + this.#targetBytes);
      this.#movedAtMs = nowMs;
      return;
    }
    // What a change did can be seen a round trip later, and in all the recent ones.
    if (nowMs - this.#movedAtMs < 2 * (baseMs + queueMs)) return;
    this.#movedAtMs = nowMs;
    this.#move(baseMs, queueMs, nowMs);
    this.#wasFull = this.roomBytes < this.#minBytes / 2;
  }

  /** A window that has been as small as it gets for a while makes no queue to speak of. */
  #suspectWay(baseMs: number, queueMs: number, nowMs: number): void {
    const ownMs = baseMs + lateMs + this.#windowBytes / this.#bestRate;
    if (this.#windowBytes > this.#minBytes || baseMs + queueMs < unexplained * ownMs) this.#aboveFloorAtMs = nowMs;
    else if (nowMs - this.#aboveFloorAtMs > foreignQueueMs) this.#base.restart(baseMs + queueMs, nowMs);
  }

  /** The connections are new: nothing is under way, and the link's speed may be another. */
  reset(): void {
    this.#inFlightBytes = 0;
    this.#isStarting = true;
    this.#set(this.#startBytes);
    this.#recent.length = 0;
    this.#measuredAtMs = -1;
  }

  get #startBytes(): number {
    return this.#favoursThroughput ? initialThroughputBytes : initialBytes;
  }

  /** The queue to aim at. */
  get #targetBytes(): number {
    return Math.max(minTargetBytes, this.bytesPerMs * this.#targetMs);
  }

  #move(baseMs: number, queueMs: number, nowMs: number): void {
    const window = this.#windowBytes;
    const steadyBytes = (window * baseMs) / (baseMs + queueMs) + this.#targetBytes;
    const targetMs = this.#targetBytes / this.bytesPerMs;
    const isCalm = queueMs < targetMs / 2;
    const wanted = isCalm ? Math.max(steadyBytes, window * (1 + 2 * this.#probing)) : steadyBytes;
    // A window that was not used up says nothing about what the link could take.
    if (wanted > window && !this.#wasFull) return;
    this.#probing = isCalm ? Math.min(maxProbing, 2 * this.#probing) : probing;
    const floorBytes = Math.max(this.#minBytes, this.bytesPerMs * baseMs * floorShare);
    this.#set(Math.max((window + wanted) / 2, floorBytes));
    if (this.#windowBytes > floorBytes + 1 || queueMs <= targetMs) this.#aboveFloorAtMs = nowMs;
    else if (nowMs - this.#aboveFloorAtMs > foreignQueueMs) this.#base.restart(baseMs + queueMs, nowMs);
  }

  #set(windowBytes: number): void {
    this.#windowBytes = Math.round(Math.min(this.#maxBytes, Math.max(this.#minBytes, windowBytes)));
  }
}
