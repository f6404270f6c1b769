/** Which guests are being moved from this machine, and by which process. */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { VmmigError } from './errors.js';
import { runningDirectory, runningFile } from './stateDirectory.js';

export interface RunningMigration {
  readonly id: string;
  readonly vm: string;
  readonly from: string | null;
  readonly to: string;
  readonly pid: number;
  /** In clock ticks since boot, from /proc: tells the process from a later one with its number. */
  readonly processStart: string;
}

/**
 * Claims a guest for this process. A claim left by a process that is gone is replaced.
 * @throws VmmigError VMMIG_ALREADY_MIGRATING
 */
export async function claim(migration: Pick<RunningMigration, 'id' | 'vm' | 'from' | 'to'>): Promise<AsyncDisposable> {
  await mkdir(runningDirectory(), { recursive: true, mode: 0o700 });
  const path = runningFile(migration.vm);
  const entry: RunningMigration = {
    ...migration,
    pid: process.pid,
    processStart: (await processStart(process.pid)) ?? '',
  };
  for (let attempt = 0; ; attempt++) {
    try {
      await writeFile(path, JSON.stringify(entry), { flag: 'wx', mode: 0o600 });
      return { [Symbol.asyncDispose]: () => rm(path, { force: true }) };
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST' || attempt > 0) throw thrown;
    }
    const other = await runningMigration(migration.vm);
    if (other !== null)
      throw new VmmigError(
        'VMMIG_ALREADY_MIGRATING',
        `${migration.vm} is being moved to ${other.to} already, by process ${other.pid}: wait for it, or run \`vmmig cancel ${migration.vm}\``,
        { phase: 'preflight', retryable: true },
      );
    await rm(path, { force: true });
  }
}

/** The migration of a guest that a living process on this machine is busy with. */
export async function runningMigration(vm: string): Promise<RunningMigration | null> {
  let entry: RunningMigration;
  try {
    entry = JSON.parse(await readFile(runningFile(vm), 'utf8')) as RunningMigration;
  } catch {
    return null;
  }
  return (await processStart(entry.pid)) === entry.processStart ? entry : null;
}

async function processStart(pid: number): Promise<string | null> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    // The second field is the command in parentheses, which may hold spaces; the start is the 22nd.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  } catch {
    return null;
  }
}
