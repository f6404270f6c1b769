/** What the guest's agent knows of its page cache, as the source's relay is told: which pages need not be sent. */
import { setTimeout as delay } from 'node:timers/promises';
import { matchDisks } from '../disk/match.js';
import type { CacheRuns } from '../guest-agent/cacheMap.js';
import type { ScanResult } from '../guest-agent/client.js';
import type { GuestAgent } from '../guest-agent/guestAgent.js';
import type { GuestInspection } from '../hypervisor/index.js';
import type { CacheMap } from '../relay/source/teleportMap.js';
import { findAgent } from './findAgent.js';
import type { SourceGuest } from './guest/sourceGuest.js';
import type { AgentSearch, Params, ScanSummary } from './protocol.js';
import { ServiceError } from './serviceError.js';

/** What was brought into the guest also leaves by itself: the guest is not kept for it. */
const restMs = 300;

export class GuestCache implements AsyncDisposable {
  #agent: GuestAgent | null = null;
  #inspection: GuestInspection | null = null;
  #latest: ScanResult | null = null;
  #scanning: Promise<unknown> = Promise.resolve();
  /** For each disk of the guest's QEMU: its index in the destination's list, or -1. */
  #diskIndexes: readonly number[] = [];
  #relay: { setCacheMap(map: CacheMap): void } | null = null;

  /** Looks for the guest's agent. */
  async find(guest: SourceGuest, inspection: GuestInspection, signal: AbortSignal): Promise<AgentSearch> {
    this.#inspection = inspection;
    const services = await guest.inspectServices(signal);
    const { agent, search } = await findAgent(inspection.agentPath, services, (path) => guest.openQga(path), signal);
    this.#agent = agent;
    return search;
  }

  /** Asks the agent for its map; a relay that is running uses it from the next page on. */
  async scan({ mode }: Params<'source.scan'>, signal: AbortSignal): Promise<ScanSummary> {
    if (this.#agent === null) throw new ServiceError('VMMIG_SERVICE_ORDER', 'there is no agent to ask');
    const scanning = this.#agent.scan({ mode, signal });
    this.#scanning = scanning;
    const scan = await scanning;
    this.#latest = scan;
    this.#tell();
    return {
      via: this.#agent.via,
      scanMs: scan.scanMs,
      pages: scan.pages,
      runs: scan.runs.count,
      disks: scan.disks.map((disk) => ({ ...disk, pages: pagesOn(scan.runs, disk.index) })),
      skipped: scan.skipped,
    };
  }

  /** Resolves when the agent has answered what it was asked last, has failed, or that takes longer. */
  async answered(patienceMs: number): Promise<void> {
    const answered = this.#scanning.catch(() => {});
    await Promise.race([answered, delay(patienceMs, undefined, { ref: false })]);
  }

  /** Nothing more is expected to be told before QEMU sets out: the agent has answered, or there is none. */
  get isKnown(): boolean {
    return this.#agent === null || this.#latest !== null;
  }

  /** @param diskIndexes - of what the destination can read */
  useDisks(diskIndexes: readonly number[]): void {
    this.#diskIndexes = diskIndexes;
  }

  /** From now on this relay is told. */
  useRelay(relay: { setCacheMap(map: CacheMap): void }): void {
    this.#relay = relay;
    this.#tell();
  }

  /** What the destination cannot read is not referred to from now on. */
  skipDisks({ indexes }: Params<'source.skipDisks'>): void {
    this.#diskIndexes = this.#diskIndexes.map((index) => (indexes.includes(index) ? -1 : index));
    this.#tell();
  }

  /** The guest is about to be stopped. */
  async rest(): Promise<void> {
    await Promise.race([this.#agent?.rest(), delay(restMs, undefined, { ref: false })]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent?.[Symbol.asyncDispose]();
  }

  /** Shows the relay where the agent's disks are on the destination. */
  #tell(): void {
    if (this.#relay === null || this.#latest === null || this.#inspection === null) return;
    const { disks, runs } = this.#latest;
    const { disks: hostDisks, memory } = this.#inspection;
    const { matched } = matchDisks(disks, hostDisks);
    const diskIndexes = disks.map((disk) => {
      const pair = matched.find(({ guest }) => guest === disk);
      return pair === undefined ? -1 : (this.#diskIndexes[hostDisks.indexOf(pair.host)] ?? -1);
    });
    this.#relay.setCacheMap({ runs, gpaMap: memory.gpaMap, diskIndexes });
  }
}

function pagesOn(runs: CacheRuns, disk: number): number {
  let pages = 0;
  for (let run = 0; run < runs.count; run++) if (runs.disk[run] === disk) pages += runs.pageCount[run]!;
  return pages;
}
