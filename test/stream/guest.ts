/** Real QEMUs with guests that need no operating system: firmware looking in vain for something to boot. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { execa } from 'execa';
import { type QemuVersion, qemuBinary } from '../../lab/qemu.js';
import { type MigrationCapability, type MigrationStatus, QmpClient } from '../../qmp/index.js';

export const VERSIONS: QemuVersion[] = ['7.2', '10.0'];

/** A directory that is removed with everything in it. */
export async function scratchDirectory(): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'vmmig-stream-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

export interface Guest extends AsyncDisposable {
  readonly qmp: QmpClient;
  /** Until a migration, in either direction, is that far; rejects when it ended otherwise. */
  migration(status: MigrationStatus): Promise<void>;
  /** What a guest that does not run has in its memory; by default in the lowest 64 MiB. */
  memory(startBytes?: number, lengthBytes?: number): Promise<Buffer>;
}

export interface GuestOptions {
  readonly args?: readonly string[];
  readonly capabilities?: readonly MigrationCapability[];
  /** Wait for a migration stream, and stay paused when it has come. */
  readonly incoming?: boolean;
}

let count = 0;

/** Starts a guest; `directory` is for its sockets. Disposing of it kills it. */
export async function startGuest(version: QemuVersion, directory: string, options: GuestOptions = {}): Promise<Guest> {
  const { command, args: first, env } = await qemuBinary(version);
  count += 1;
  const socket = join(directory, `qmp${count}`);
  const incoming = options.incoming ? ['-incoming', 'defer', '-S'] : [];
  const common = ['-accel', 'tcg', '-display', 'none', '-nodefaults', '-qmp', `unix:${socket},server=on,wait=off`];
  const all = [...first, ...common, ...incoming, ...(options.args ?? SMALL)];
  const qemu = execa(command, all, { env, reject: false, forceKillAfterDelay: 1000, cleanup: true });
  const stop = async () => {
    qemu.kill('SIGKILL');
    await qemu;
  };
  try {
    const exited = qemu.then(({ stderr }) => Promise.reject(new Error(`QEMU ended: ${stderr}`)));
    const qmp = await Promise.race([QmpClient.connect({ path: socket }, { retry: true, timeoutMs: 20_000 }), exited]);
    exited.catch(() => {});
    const capabilities = (options.capabilities ?? []).map((capability) => ({ capability, state: true }));
    if (capabilities.length > 0) await qmp.execute('migrate-set-capabilities', { capabilities });
    return {
      qmp,
      migration: (status) => migration(qmp, status),
      async memory(startBytes = 0, lengthBytes = 64 * 2 ** 20) {
        const filename = `${socket}.memory`;
        await qmp.execute('pmemsave', { val: startBytes, size: lengthBytes, filename });
        return await readFile(filename);
      },
      async [Symbol.asyncDispose]() {
        await qmp.close();
        await stop();
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function migration(qmp: QmpClient, wanted: MigrationStatus): Promise<void> {
  const deadline = Date.now() + 45_000;
  for (;;) {
    const { status, 'error-desc': reason } = await qmp.execute('query-migrate');
    if (status === wanted) return;
    if (status === 'completed' || status === 'failed' || status === 'cancelled' || Date.now() > deadline) {
      throw new Error(`Migration is ${status}, not ${wanted}: ${reason ?? 'no reason given'}`);
    }
    await setTimeout(20);
  }
}

export const SMALL = ['-machine', 'q35', '-m', '64'];
