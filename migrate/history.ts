/** Reports of past migrations. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { VmmigError } from './errors.js';
import type { MigrationReport } from './report.js';
import { migrationDirectory, migrationsDirectory } from './stateDirectory.js';

/** All reports kept on this machine, the latest first. */
export async function history(): Promise<MigrationReport[]> {
  const ids = await readdir(migrationsDirectory()).catch(() => []);
  const reports = await Promise.all(ids.sort().reverse().map(readReport));
  return reports.filter((report) => report !== null);
}

/**
 * One report, by the migration's id or, the latest, by the guest's name.
 * @throws VmmigError VMMIG_USAGE_NO_REPORT
 */
export async function showReport(idOrVm: string): Promise<MigrationReport> {
  const report = /^[\w-]+$/.test(idOrVm) ? await readReport(idOrVm) : null;
  const found = report ?? (await history()).find(({ vm }) => vm === idOrVm);
  if (found === undefined)
    throw new VmmigError('VMMIG_USAGE_NO_REPORT', `no migration of "${idOrVm}", nor one with that id, is kept here`);
  return found;
}

/** Null while the migration goes on, and when it left none. */
export async function readReport(id: string): Promise<MigrationReport | null> {
  try {
    return JSON.parse(await readFile(join(migrationDirectory(id), 'report.json'), 'utf8')) as MigrationReport;
  } catch {
    return null;
  }
}
