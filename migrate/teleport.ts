/**
 * Teleport: everything is put back on the destination before the guest resumes there, the page cache from the
 * shared disk. Before the commit point every way out leaves the guest running on the source.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { call, type DestinationSample, type Loaded, type ScanSummary } from '../host-service/protocol.js';
import { Migration, migrate } from './migration.js';
import { Precopy } from './precopy.js';
import type { Prepared } from './prepared.js';
import type { MigrationReport } from './report.js';
import type { Hooks, MigrateRequest } from './requests.js';
import { tally } from './tally.js';

const defaultMaxDowntimeMs = 300;
const lastWordsMs = 2000;

/**
 * Moves a guest. Resolves with the report whatever becomes of it.
 * @throws VmmigError VMMIG_USAGE_… or VMMIG_ALREADY_MIGRATING, InventoryError: nothing was tried
 */
export async function teleport(request: MigrateRequest, hooks: Hooks = {}): Promise<MigrationReport> {
  return await migrate('teleport', (task) => new Teleport(task), request, hooks);
}

class Teleport extends Migration {
  #precopying: Precopy | null = null;
  #loaded: Loaded | null = null;

  protected async move(prepared: Prepared, scan: ScanSummary | null): Promise<void> {
    const stoppedAtMs = await this.#precopy(prepared, scan);
    await this.#letRun(prepared, stoppedAtMs);
    await this.#release(prepared);
  }

  /** From the start of QEMU's migration to the destination's QEMU holding the same memory. @returns when the guest stopped */
  async #precopy({ source, destination }: Prepared, scan: ScanSummary | null): Promise<number> {
    const { recorder, signal } = this;
    let restored = { pages: 0, bytes: 0 };
    using _subscription = destination.rpc.onNotification('destination.sample', ({ counters }: DestinationSample) => {
      restored = { pages: counters.pages.restored, bytes: counters.bytes.restored };
    });
    using precopy = new Precopy(source, recorder, {
      maxDowntimeMs: this.request.maxDowntimeMs ?? defaultMaxDowntimeMs,
      rescan: scan === null ? null : async () => void (await this.scan(source, 'changes')),
      restored: () => restored,
      signal,
    });
    this.#precopying = precopy;
    const sent = call(source.rpc, 'source.finished', {}, { signal });
    const loaded = call(destination.rpc, 'destination.finished', {}, { signal });
    const whatFails = new Promise<never>((_, reject) => {
      loaded.catch(reject);
      sent.catch(async (error) => {
        // When the destination's relay gave up, the destination knows better why: QEMU has told there.
        if (error.code === 'VMMIG_RELAY_QEMU') await Promise.race([loaded, delay(lastWordsMs)]).catch(() => {});
        reject(error);
      });
    });
    whatFails.catch(() => {});
    await recorder.during('precopy', () => Promise.race([precopy.untilTimeToSwitch(), whatFails]));
    await recorder.during('switch-over', () => Promise.race([precopy.untilStopped(), whatFails]));
    return await recorder.during('restore', async () => {
      const [{ stoppedAtMs, sample }, result] = await Promise.all([sent, loaded]);
      precopy.latest = sample;
      this.#loaded = result;
      recorder.facts = { ...recorder.facts, verified: true };
      return stoppedAtMs - (await source.clock).offsetMs;
    });
  }

  /** The commit point: from here on the source does not resume by itself. */
  async #letRun({ source, destination }: Prepared, stoppedAtMs: number): Promise<void> {
    const { recorder, journal } = this;
    await recorder.during('verify', async () => {
      const { signal } = this;
      this.isHeld = true;
      await Promise.all([
        journal.writeDurably('committing', {
          destinationProcess: this.destinationProcess,
          destinationName: this.request.domain?.destinationName ?? null,
        }),
        call(source.rpc, 'source.hold', {}, { signal }),
      ]);
      signal.throwIfAborted();
      this.commit = 'asked';
      const { resumedAtMs } = await call(destination.rpc, 'destination.commit', {}, { timeoutMs: 30_000 });
      this.commit = 'done';
      const switchoverMs = Math.round(recorder.elapsedMs);
      await journal.writeDurably('committed');
      const localMs = resumedAtMs - (await destination.clock).offsetMs;
      recorder.facts = { ...recorder.facts, switchoverMs, downtimeMs: Math.max(0, Math.round(localMs - stoppedAtMs)) };
    });
  }

  async #release({ source }: Prepared): Promise<void> {
    await this.recorder.during('release source', () =>
      call(source.rpc, 'source.release', this.directoryOn(source), { timeoutMs: 30_000 }),
    );
    this.recorder.facts = { ...this.recorder.facts, releasedMs: Math.round(this.recorder.elapsedMs) };
  }

  protected count(): void {
    const sides = [this.sides.source, this.sides.destination].filter((side) => side !== null);
    this.recorder.facts = { ...this.recorder.facts, ...tally(this.#precopying?.latest ?? null, this.#loaded, sides) };
  }
}
