/**
 * Sends the guest's pages in batches. What the store calls a batch is known by the sequence of its frame until the
 * destination has said what became of it. What a batch carries is part of what both sides compare in the end.
 */
import { digestBatch } from '../../batchDigest.js';
import type { RelayCounters } from '../../counters.js';
import { type BlockSize, MemoryDigest, type RunDigester } from '../../digest.js';
import { RelayError } from '../../errors.js';
import { type Batch, BatchBuilder, type BatchRecord } from '../../link/batch.js';
import { type Frame, frameType } from '../../link/frames.js';
import { decodeResendRequest, encodeResend } from '../../link/resend.js';
import { decodeSequences } from '../../link/sequences.js';
import type { SentSet } from '../../store/flights.js';
import type { FilePages } from '../filePages.js';
import type { GuestPages } from '../guestPages.js';
import type { SwitchLink } from './switchLink.js';

export interface BatchSenderOptions {
  readonly link: Pick<SwitchLink, 'sendOrdered' | 'sendUrgent' | 'urgentBytes'>;
  readonly digester: RunDigester;
  readonly counters: RelayCounters;
  readonly compress: boolean;
  /** Runs have been sent that nobody had asked for. */
  readonly sent: (records: readonly BatchRecord[]) => void;
}

/** Tells the batches that answer faults from those that are sent in order. */
const answerBit = 2 ** 31;
/** Of runs, each of which is asked for once: far more than are under way. */
const maxWanted = 2 ** 16;
/** Kept by the link because the destination is not known to have it. */
const maxUrgentBytes = 4 * 1024 * 1024;

export class BatchSender {
  /** What is sent from. */
  readonly store: GuestPages;
  readonly blocks: readonly BlockSize[];
  readonly #options: BatchSenderOptions;
  readonly #builder = new BatchBuilder();
  /** By the sequence under which a batch was sent: what the store calls it. */
  readonly #tokens = new Map<number, Pick<SentSet, 'token' | 'bytesPages'>>();
  #pagesUnderWay = 0;
  #digest: MemoryDigest;
  #nextAnswer = 0;
  /** Runs that are to be sent again. */
  readonly #wanted: Pick<Frame, 'payload' | 'sequence'>[] = [];

  /** @param blocks - the guest's */
  constructor(store: GuestPages, blocks: readonly BlockSize[], options: BatchSenderOptions) {
    this.store = store;
    this.blocks = blocks;
    this.#options = options;
    this.#digest = new MemoryDigest(blocks);
  }

  /** Sent as bytes, and not known to be in place at the destination. */
  get pagesUnderWay(): number {
    return this.#pagesUnderWay;
  }

  /** Sends what is next. @returns false when there was nothing */
  send(limitPages: number): boolean {
    return this.#launch(this.store.fillBatch(this.#builder, limitPages));
  }

  /** Sends what has not been of these pages. */
  sendNow(block: number, page: number, count: number): void {
    this.#launch(this.store.takeNow(block, page, count, this.#builder).sent);
  }

  /** The same, as urgent as an answer is. @returns false when there was nothing */
  answer(block: number, page: number, count: number): boolean {
    const { sent } = this.store.takeNow(block, page, count, this.#builder);
    if (sent === null) return false;
    const sequence = answerBit + this.#nextAnswer++;
    this.#note(sequence, sent);
    this.#options.link.sendUrgent(frameType.answer, this.#take(this.#contents()), sequence);
    this.#options.counters.pages.sent += sent.bytesPages;
    return true;
  }

  /**
   * Sends memory that the guest may still write to: no part of what is compared in the end.
   *
   * @returns false when there was nothing among the pages that were looked at
   */
  sendAhead(files: Pick<FilePages, 'fillAhead'>, limitPages: number): boolean {
    const sent = files.fillAhead(this.#builder, limitPages);
    if (sent === null) return false;
    const { link, counters, compress } = this.#options;
    this.#note(link.sendOrdered(frameType.ahead, this.#builder.take(compress)), sent);
    counters.pages.sent += sent.bytesPages;
    return true;
  }

  /** The destination has all of these batches. @throws RelayError when they were not sent */
  acknowledged(sequences: Buffer): void {
    this.#settle(sequences, (token) => this.store.acknowledged(token));
  }

  /** The destination has dropped what these batches brought. @throws RelayError when they were not sent */
  givenBack(sequences: Buffer): void {
    this.#settle(sequences, (token) => this.store.givenBack(token));
  }

  /** The destination's disk does not hold what the cache map says. @throws RelayError when it says so too often */
  want({ payload, sequence }: Frame): void {
    if (this.#wanted.length === maxWanted)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination asks for more than was sent as references');
    this.#wanted.push({ payload: Buffer.from(payload), sequence });
  }

  /** Sends the kept bytes of what is wanted: no more at a time than the link is to keep. @returns whether that was all */
  resendWanted(): boolean {
    const { link } = this.#options;
    while (this.#wanted.length > 0 && link.urgentBytes < maxUrgentBytes) this.#resend(this.#wanted.shift()!);
    return this.#wanted.length === 0;
  }

  #resend({ payload, sequence }: Pick<Frame, 'payload' | 'sequence'>): void {
    const sent = this.#tokens.get(sequence);
    const run = sent === undefined ? null : this.store.bytesOf(sent.token, decodeResendRequest(payload));
    if (run === null)
      throw new RelayError(
        'VMMIG_LINK_PROTOCOL',
        'the destination asked for what was not sent as a reference, or twice',
      );
    const { link, counters } = this.#options;
    if (run.isHeld !== true) counters.pages.mismatched += run.count;
    counters.pages.sent += run.count;
    link.sendUrgent(frameType.resend, encodeResend(payload, run.bytes), sequence);
  }

  /** Over the last version of all that was sent. */
  root(): Buffer {
    return this.#digest.root();
  }

  /** Nothing that was sent will be acknowledged any more. The root covers what is sent from here on. */
  restart(): void {
    this.#tokens.clear();
    this.#pagesUnderWay = 0;
    this.#wanted.length = 0;
    this.#digest = new MemoryDigest(this.blocks);
  }

  #launch(sent: SentSet | null): boolean {
    if (sent === null) return false;
    const { link, counters } = this.#options;
    const contents = this.#contents();
    this.#note(link.sendOrdered(frameType.batch, this.#take(contents)), sent);
    counters.pages.sent += sent.bytesPages;
    this.#options.sent(contents.records);
    return true;
  }

  #contents(): Batch {
    return this.#builder.contents();
  }

  #take(contents: Batch): Buffer {
    digestBatch(this.#digest, this.#options.digester, contents);
    return this.#builder.take(this.#options.compress);
  }

  #note(sequence: number, sent: SentSet): void {
    this.#tokens.set(sequence, sent);
    this.#pagesUnderWay += sent.bytesPages;
  }

  /** @param settle - false when no such batch is under way */
  #settle(sequences: Buffer, settle: (token: number) => boolean): void {
    for (const sequence of decodeSequences(sequences)) {
      const sent = this.#tokens.get(sequence);
      if (sent === undefined || !settle(sent.token))
        throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination acknowledged what was not sent');
      this.#tokens.delete(sequence);
      this.#pagesUnderWay -= sent.bytesPages;
    }
  }
}
