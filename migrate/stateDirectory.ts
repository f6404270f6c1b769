/**
 * Where vmmig remembers: one folder a migration, with its journal and its report, and one file a guest
 * that is being moved from this machine.
 *
 *   migrations/ID/journal.ndjson   what was done, in order; the steps around the commit point are on disk before they are taken
 *   migrations/ID/report.json      once it is over
 *   running/VM.json                while it goes on
 */
import { randomBytes } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** VMMIG_STATE_DIR, else vmmig/ in the XDG state directory. */
export function stateDirectory(env: NodeJS.ProcessEnv = process.env): string {
  if (env.VMMIG_STATE_DIR) return env.VMMIG_STATE_DIR;
  return join(env.XDG_STATE_HOME || join(env.HOME || homedir(), '.local', 'state'), 'vmmig');
}

export const migrationsDirectory = () => join(stateDirectory(), 'migrations');
export const migrationDirectory = (id: string) => join(migrationsDirectory(), id);
export const runningDirectory = () => join(stateDirectory(), 'running');
export const runningFile = (vm: string) => join(runningDirectory(), `${encodeURIComponent(vm)}.json`);

/** Sorts by time: `20261122-051604-3fa9c1`. */
export function newMigrationId(now: Date = new Date()): string {
  const [date, time] = now.toISOString().replace(/[-:]/g, '').split(/[T.]/);
  return `${date}-${time}-${randomBytes(3).toString('hex')}`;
}

/** The ids of all migrations that this machine has a journal of. */
export async function journalIds(): Promise<string[]> {
  return await readdir(migrationsDirectory()).catch(() => []);
}
