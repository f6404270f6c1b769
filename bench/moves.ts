/** One guest in the lab and the ways to move it: vmmig's, and stock QEMU's for comparison. */
import { setTimeout as delay } from 'node:timers/promises';
import {
  type GuestShell,
  guestPathsFromOutside,
  type HostName,
  type LabGuestOptions,
  labExec,
  labGuestShell,
  labGuestStart,
  networks,
  wanCounters,
} from '../lab/index.js';
import type { MigrationReport } from '../migrate/index.js';
import { type MigrationCapability, QmpClient } from '../qmp/index.js';
import { qemuCpuMs, serviceCpuMs } from './cpu.js';
import { warmMemory } from './warmMemory.js';

export interface Move {
  readonly name: string;
  /** What crossed the WAN, both ways, with all headers. */
  readonly wireBytes: number;
  readonly totalMs: number;
  readonly downtimeMs: number | null;
  /** Of vmmig's services on both hosts, or of both QEMUs where no service has a part in it; null: not measured. */
  readonly cpuMs: number | null;
  readonly report: MigrationReport | null;
}

/**
 * `precopy` is QEMU as it is; `multifd-zstd` is two channels, compressed; `xbzrle` sends what has changed of a page;
 * `postcopy` switches over at once. All may use all of the link.
 */
export type StockMode = 'precopy' | 'multifd-zstd' | 'xbzrle' | 'postcopy';

export interface MoveOptions {
  readonly arguments?: readonly string[];
  readonly showProgress?: boolean;
}

const port = 4446;
const pollIntervalMs = 50;
const sinkPollMs = 5;

export class LabGuest {
  host: HostName;
  readonly #options: LabGuestOptions;

  private constructor(
    readonly name: string,
    host: HostName,
    options: LabGuestOptions,
  ) {
    this.host = host;
    this.#options = options;
  }

  /** Boots a guest on hostA. */
  static async start(name: string, options: LabGuestOptions): Promise<LabGuest> {
    await labGuestStart(name, 'hostA', options);
    return new LabGuest(name, 'hostA', options);
  }

  get otherHost(): HostName {
    return this.host === 'hostA' ? 'hostB' : 'hostA';
  }

  /** Runs a command in the guest, wherever it is. @throws Error when it fails */
  async run(command: string, timeoutMs = 120_000): Promise<string> {
    await using shell: GuestShell = await labGuestShell(this.name, this.host);
    const { stdout, exitCode } = await shell.run(command, { timeoutMs });
    if (exitCode !== 0) throw new Error(`in ${this.name}, "${command}" exited with ${exitCode}: ${stdout}`);
    return stdout.trim();
  }

  /** Moves the guest with vmmig, run on the host where it is. */
  async teleport(options: MoveOptions = {}): Promise<Move> {
    return await this.#move('teleport', options);
  }

  /** Likewise, but the guest runs on the other host first. */
  async switch(options: MoveOptions = {}): Promise<Move> {
    return await this.#move('switch', options);
  }

  async #move(verb: 'teleport' | 'switch', options: MoveOptions): Promise<Move> {
    warmMemory();
    const before = await wireBytes();
    const beforeCpuMs = serviceCpuMs();
    const startMs = performance.now();
    const argv = ['vmmig', verb, this.name, '--to', this.otherHost, '--json', ...(options.arguments ?? [])];
    const result = await labExec(this.host, argv as [string, ...string[]], {
      reject: false,
      stderr: options.showProgress ? 'inherit' : 'pipe',
    });
    const totalMs = performance.now() - startMs;
    if (result.exitCode !== 0) throw new Error(`vmmig ${verb} exited with ${result.exitCode}: ${result.stderr ?? ''}`);
    const report = JSON.parse(String(result.stdout)) as MigrationReport;
    this.host = this.otherHost;
    return {
      name: `vmmig ${verb}`,
      wireBytes: (await wireBytes()) - before,
      totalMs,
      cpuMs: serviceCpuMs() - beforeCpuMs,
      downtimeMs: report.downtimeMs,
      report,
    };
  }

  /** Moves the guest the way QEMU does by itself. */
  async stock(mode: StockMode): Promise<Move> {
    const to = this.otherHost;
    warmMemory();
    await labGuestStart(this.name, to, { ...this.#options, incoming: 'defer' });
    const source = await QmpClient.connect({ path: guestPathsFromOutside(this.name, this.host).qmpPath });
    const destination = await QmpClient.connect({ path: guestPathsFromOutside(this.name, to).qmpPath });
    const address = `tcp:${networks[to].address}:${port}`;
    const multifd = mode === 'multifd-zstd';
    const capabilities = capabilitiesOf({ multifd, postcopy: mode === 'postcopy', xbzrle: mode === 'xbzrle' });
    for (const qmp of [destination, source]) {
      await qmp.execute('migrate-set-capabilities', { capabilities });
      if (multifd)
        await qmp.execute('migrate-set-parameters', { 'multifd-channels': 2, 'multifd-compression': 'zstd' });
    }
    await source.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40, 'downtime-limit': 300 });
    await destination.execute('migrate-incoming', { uri: address });
    const before = await wireBytes();
    const beforeCpuMs = qemuCpuMs(this.name);
    const startMs = performance.now();
    await source.execute('migrate', { uri: address });
    if (mode === 'postcopy') await source.execute('migrate-start-postcopy');
    let info = await source.execute('query-migrate');
    while (info.status !== 'completed') {
      if (info.status === 'failed') throw new Error(`stock ${mode} failed: ${info['error-desc'] ?? ''}`);
      await delay(pollIntervalMs);
      info = await source.execute('query-migrate');
    }
    while (!(await destination.execute('query-status')).running) await delay(pollIntervalMs);
    const totalMs = performance.now() - startMs;
    const moved = (await wireBytes()) - before;
    const cpuMs = qemuCpuMs(this.name) - beforeCpuMs;
    await source.execute('quit').catch(() => {});
    await source.close();
    await destination.execute('migrate-set-capabilities', {
      capabilities: capabilitiesOf({ multifd: false, postcopy: false, xbzrle: false }),
    });
    await destination.close();
    this.host = to;
    const name = `QEMU ${mode}`;
    return { name, wireBytes: moved, totalMs, cpuMs, downtimeMs: info.downtime ?? null, report: null };
  }

  /** How long QEMU takes to stream the guest's memory to nowhere. The guest goes on afterwards. */
  async sinkMs(): Promise<number> {
    await using qmp = await QmpClient.connect({ path: guestPathsFromOutside(this.name, this.host).qmpPath });
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40, 'downtime-limit': 300 });
    const startMs = performance.now();
    await qmp.execute('migrate', { uri: 'exec:cat > /dev/null' });
    for (;;) {
      const { status } = await qmp.execute('query-migrate');
      if (status === 'completed') break;
      if (status === 'failed') throw new Error('QEMU cannot stream to a local sink');
      await delay(sinkPollMs);
    }
    const elapsedMs = performance.now() - startMs;
    await qmp.execute('cont');
    return elapsedMs;
  }
}

function capabilitiesOf({ multifd, postcopy, xbzrle }: Record<'multifd' | 'postcopy' | 'xbzrle', boolean>) {
  const wanted: [MigrationCapability, boolean][] = [
    ['multifd', multifd],
    ['postcopy-ram', postcopy],
    ['xbzrle', xbzrle],
  ];
  return wanted.map(([capability, state]) => ({ capability, state }));
}

/** What has crossed the WAN, both ways. */
export async function wireBytes(): Promise<number> {
  const { toHostA, toHostB } = await wanCounters();
  return toHostA + toHostB;
}
