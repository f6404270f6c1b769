/** Asks the guest's agent for its page cache on behalf of a migration, which goes on without it. */
import { call, type ScanSummary } from '../host-service/protocol.js';
import { toVmmigError } from './errors.js';
import type { Recorder } from './recorder.js';
import type { Side } from './sides.js';

export class CacheScans {
  readonly #source: Side;
  readonly #recorder: Recorder;
  readonly #signal: AbortSignal;
  #latest: ScanSummary | null = null;
  #giveUp: AbortController | null = null;
  #over: Promise<void> = Promise.resolve();
  /** It costs the elision of what it would have named, not the migration; and is not asked again. */
  #agentHasFailed = false;

  constructor(source: Side, recorder: Recorder, signal: AbortSignal) {
    this.#source = source;
    this.#recorder = recorder;
    this.#signal = signal;
  }

  /** Pages that the agent has told of last, and that need not be sent as bytes. */
  get cachedPages(): number {
    return this.#latest?.pages ?? 0;
  }

  get isUnderWay(): boolean {
    return this.#giveUp !== null;
  }

  get mayAsk(): boolean {
    return !this.isUnderWay && !this.#agentHasFailed;
  }

  /** Resolves when the scan under way has been answered, given up, or failed for the agent's sake. Rejects with what else fails. */
  get over(): Promise<void> {
    return this.#over;
  }

  /** The first one, told as a phase of the migration. */
  begin(): void {
    const summary = () => {
      if (this.#latest === null) return 'no answer';
      const { pages, runs } = this.#latest;
      return `${pages.toLocaleString('en')} cached pages in ${runs.toLocaleString('en')} runs`;
    };
    this.#track((giveUp) => this.#recorder.during('scan', () => this.#ask(giveUp), summary));
  }

  /** What has changed since the last answer; all, if there has been none. */
  again(): void {
    this.#track((giveUp) => this.#ask(giveUp));
  }

  giveUp(): void {
    this.#giveUp?.abort();
  }

  #track(ask: (giveUp: AbortSignal) => Promise<void>): void {
    const controller = new AbortController();
    this.#giveUp = controller;
    this.#over = ask(controller.signal).finally(() => {
      this.#giveUp = null;
    });
    this.#over.catch(() => {});
  }

  async #ask(giveUp: AbortSignal): Promise<void> {
    const mode = this.#latest === null ? 'full' : 'changes';
    const signal = AbortSignal.any([this.#signal, giveUp]);
    try {
      this.#take(await call(this.#source.rpc, 'source.scan', { mode }, { signal }));
    } catch (thrown) {
      if (giveUp.aborted) return;
      const { code, message } = toVmmigError(thrown);
      if (!code.startsWith('VMMIG_AGENT_')) throw thrown;
      this.#agentHasFailed = true;
      this.#recorder.notice('warn', code, `the guest's agent failed, so its page cache is sent: ${message}`);
    }
  }

  #take(scan: ScanSummary): void {
    this.#latest = scan;
    const { agent } = this.#recorder.facts;
    this.#recorder.facts = {
      ...this.#recorder.facts,
      agent: {
        via: scan.via,
        scanMs: Math.round((agent?.scanMs ?? 0) + scan.scanMs),
        pages: scan.pages,
        scans: (agent?.scans ?? 0) + 1,
        skipped: scan.skipped,
      },
    };
  }
}
