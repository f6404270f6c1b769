/** Which guests are being moved from this machine, and by which process. */
import { randomUUID } from 'node:crypto';
import { link, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
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
  // Written whole before it gets its name: whoever sees the claim can read it.
  const draft = `${path}.${process.pid}-${randomUUID()}`;
  await writeFile(draft, JSON.stringify(entry), { mode: 0o600 });
  try {
    for (;;) {
      try {
        await link(draft, path);
        return { [Symbol.asyncDispose]: () => rm(path, { force: true }) };
      } catch (thrown) {
        if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST') throw thrown;
      }
      const found = await readFile(path, 'utf8').catch(() => '');
      const other = await living(found);
      if (other !== null)
        throw new VmmigError(
          'VMMIG_ALREADY_MIGRATING',
          `${migration.vm} is being moved to ${other.to} already, by process ${other.pid}: wait for it, or run \`vmmig cancel ${migration.vm}\``,
          { phase: 'preflight', retryable: true },
        );
      await removeStale(path, found);
    }
  } finally {
    await rm(draft, { force: true });
  }
}

/** Removes a claim whose process is gone, and puts it back when it is not the one that was looked at any more. */
async function removeStale(path: string, content: string): Promise<void> {
  const aside = `${path}.stale-${randomUUID()}`;
  try {
    await rename(path, aside);
    if ((await readFile(aside, 'utf8')) !== content) await link(aside, path);
  } catch {
    // Another process was faster: the claim is looked at anew.
  } finally {
    await rm(aside, { force: true });
  }
}

/** The migration of a guest that a living process on this machine is busy with. */
export async function runningMigration(vm: string): Promise<RunningMigration | null> {
  return await living(await readFile(runningFile(vm), 'utf8').catch(() => ''));
}

/** All that living processes on this machine are busy with. */
export async function runningMigrations(): Promise<RunningMigration[]> {
  const names = (await readdir(runningDirectory()).catch(() => [])).filter((name) => name.endsWith('.json'));
  const found = await Promise.all(
    names.map(async (name) => await living(await readFile(join(runningDirectory(), name), 'utf8').catch(() => ''))),
  );
  return found.filter((running) => running !== null);
}

const entrySchema = z.object({
  id: z.string(),
  vm: z.string(),
  from: z.string().nullable(),
  to: z.string(),
  pid: z.number().int(),
  processStart: z.string(),
});

/** The claim in a file's content, if the process that made it is still there. */
async function living(content: string): Promise<RunningMigration | null> {
  let entry: RunningMigration;
  try {
    entry = entrySchema.parse(JSON.parse(content));
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
