/** What a guest, and QEMU for it, will look at first when it goes on elsewhere: asked of a QEMU in which it runs. */
import { statfs } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import {
  type CpuState,
  cpuStates,
  type GuestInspection,
  loadWorkingSet,
  type MappedStretch,
  PhysicalMemory,
  type QmpMonitor,
  type RamStretch,
  RecentUse,
  type VirtioQueue,
  virtioQueues,
} from '../../hypervisor/index.js';
import type { MemoryFile } from '../../pager/index.js';
import type { GuestBlock } from '../../relay/source/guestBlock.js';
import type { ExpectedUse } from '../../relay/source/switchSource.js';
import { cpuWorkingSet, type WorkingSet } from './cpuWorkingSet.js';
import { type GpaStretch, mergedPages, pageAt, pageBytes, pagesOf } from './gpaStretches.js';

const nothing: WorkingSet = { now: [], soon: [], later: [] };
/** What the guest will look at soon is much the same for so long. */
const soonAgeMs = 5000;
/** A processor that runs a process shows little of the kernel. */
const maxLooks = 4;
const lookAgainMs = 3;
/** In which a guest has used most of what it uses all the time. */
const watchMs = 200;
/** Linux's <linux/magic.h> */
const TMPFS_MAGIC = 0x01021994;

export class ExpectedUseFinder implements Disposable {
  readonly #qmp: QmpMonitor;
  readonly #inspection: GuestInspection;
  readonly #blocks: readonly GuestBlock<MemoryFile>[];
  readonly #ended = new AbortController();
  #opening: Promise<PhysicalMemory | null> | null = null;
  #memory: PhysicalMemory | null = null;
  #read: readonly RamStretch[] = [];
  #queues: Promise<readonly VirtioQueue[]> = Promise.resolve([]);
  #found = nothing;
  #foundAtMs = -Infinity;
  #recent: { readonly use: RecentUse; readonly stretches: readonly GpaStretch[] } | null = null;

  /** @param blocks - the guest's, where some of them are kept in files */
  constructor(qmp: QmpMonitor, inspection: GuestInspection, blocks: readonly GuestBlock<MemoryFile>[]) {
    this.#qmp = qmp;
    this.#inspection = inspection;
    this.#blocks = blocks;
  }

  /** Nothing where that cannot be found out: it costs the guest some waiting. */
  async find(signal?: AbortSignal): Promise<void> {
    const { gpaMap } = this.#inspection.memory;
    const memory = await this.#open();
    const isKnown = performance.now() - this.#foundAtMs < soonAgeMs;
    const processors =
      memory === null ? null : this.#processors(signal).then((cpus) => cpuWorkingSet(cpus, memory, isKnown));
    if (!isKnown) this.#queues = virtioQueues(this.#qmp, signal).catch(() => []);
    const [queues, found] = await Promise.all([this.#queues, processors?.catch(() => nothing) ?? nothing]);
    this.#read = loadWorkingSet(queues, gpaMap, memory);
    if (isKnown) this.#found = { ...this.#found, now: found.now };
    else {
      this.#found = found;
      this.#foundAtMs = performance.now();
    }
  }

  /** What was found, in the order in which it is likely to be used, as far as that is known by now. */
  get latest(): ExpectedUse {
    const { soon, later } = this.#byUse();
    return {
      now: [...this.#read, ...this.#placed(this.#found.now)],
      soon: this.#placed(soon),
      later: this.#placed(later),
    };
  }

  /**
   * Finds out which of what was found the guest uses; `latest` knows it when this resolves.
   *
   * @returns false where that cannot be done
   */
  async watch(): Promise<boolean> {
    const { process, accelerator } = this.#inspection;
    const { signal } = this.#ended;
    const watched = await this.#watchable();
    if (watched.length === 0) return false;
    // Code that has been translated is not read any more. Who has QEMU log something keeps that.
    const isEmulated = accelerator === 'other' && !process.argv.includes('-d');
    if (isEmulated) await this.#translate('nochain');
    try {
      const use = await RecentUse.watch(
        process.pid,
        watched.map(({ mapped }) => mapped),
        signal,
      );
      if (use === null || signal.aborted) return false;
      this.#recent?.use[Symbol.dispose]();
      this.#recent = { use, stretches: watched.map(({ stretch }) => stretch) };
      await delay(watchMs, undefined, { signal, ref: false });
    } finally {
      if (isEmulated) await this.#translate('none');
    }
    return true;
  }

  [Symbol.dispose](): void {
    this.#ended.abort();
    this.#recent?.use[Symbol.dispose]();
    this.#recent = null;
    void this.#opening?.then((memory) => memory?.[Symbol.dispose]());
  }

  async #open(): Promise<PhysicalMemory | null> {
    const { process, memory } = this.#inspection;
    this.#opening ??= PhysicalMemory.open(this.#qmp, process, memory.gpaMap, this.#ended.signal).catch(() => null);
    this.#memory = await this.#opening;
    return this.#memory;
  }

  #placed(stretches: readonly GpaStretch[]): RamStretch[] {
    return stretches.flatMap(({ gpa, lengthBytes }) => this.#memory?.stretch(gpa, lengthBytes) ?? []);
  }

  /** As they are while they are the kernel's, if that can be seen: then they show more of it. */
  async #processors(signal?: AbortSignal): Promise<CpuState[]> {
    let cpus = await cpuStates(this.#qmp, signal);
    for (let tries = 1; tries < maxLooks && cpus.some(({ own }) => own === null); tries++) {
      await delay(lookAgainMs, undefined, { signal });
      const later = await cpuStates(this.#qmp, signal);
      cpus = cpus.map((cpu, at) => (cpu.own === null ? (later[at] ?? cpu) : cpu));
    }
    return cpus;
  }

  async #translate(how: 'nochain' | 'none'): Promise<void> {
    await this.#qmp.execute('human-monitor-command', { 'command-line': `log ${how}` }).catch(() => {});
  }

  /** Of what was found, what is kept in files in memory. */
  async #watchable(): Promise<{ readonly stretch: GpaStretch; readonly mapped: MappedStretch }[]> {
    const inMemory = new Set(await inMemoryFiles(this.#blocks));
    const memory = inMemory.size === 0 ? null : await this.#open();
    if (memory === null) return [];
    return mergedPages([...this.#found.soon, ...this.#found.later]).flatMap((stretch) => {
      const { gpa, lengthBytes } = stretch;
      const address = memory.address(gpa);
      const [kept] = memory.stretch(gpa, lengthBytes);
      const isThere = kept !== undefined && kept.lengthBytes === lengthBytes && inMemory.has(kept.block);
      return address !== null && isThere ? [{ stretch, mapped: { address, lengthBytes } }] : [];
    });
  }

  /** What has been used lately will be used soon, and the rest later, if at all. */
  #byUse(): Pick<WorkingSet, 'soon' | 'later'> {
    const { soon, later } = this.#found;
    if (this.#recent === null) return { soon, later };
    const { use, stretches } = this.#recent;
    const used = new Set<number>();
    for (const [at, isUsed] of use.used().entries())
      for (let page = 0; page < isUsed.length; page++)
        if (isUsed[page] !== 0) used.add(stretches[at]!.gpa + page * pageBytes);
    const first = pagesOf([...soon, ...later]).filter((gpa) => used.has(gpa));
    return { soon: first.map(pageAt), later: [...soon, ...later] };
  }
}

/** Of the blocks that are kept in files, those of which the files are kept in memory: names. */
async function inMemoryFiles(blocks: readonly GuestBlock<MemoryFile>[]): Promise<string[]> {
  const names = blocks.map(async ({ name, place }) => {
    const found = place === null ? null : await statfs(place.file.path).catch(() => null);
    return found?.type === TMPFS_MAGIC ? [name] : [];
  });
  return (await Promise.all(names)).flat();
}
