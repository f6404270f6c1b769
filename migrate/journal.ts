/** The journal of one migration: what was done and when, kept so that it can be understood, and recovered, later. */
import { type FileHandle, mkdir, open, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { MigrationReport } from './report.js';
import { migrationDirectory } from './stateDirectory.js';

export type JournalEvent = 'begin' | 'phase' | 'committing' | 'committed' | 'rollback' | 'end' | 'recovered';

/** One line of a journal; what else it has depends on the event. */
export interface JournalEntry {
  /** ISO 8601, UTC. */
  readonly at: string;
  readonly event: JournalEvent;
  readonly [detail: string]: unknown;
}

/** What a journal holds so far, also while it is written; nothing when there is none. */
export async function readJournal(id: string): Promise<JournalEntry[]> {
  const text = await readFile(join(migrationDirectory(id), 'journal.ndjson'), 'utf8').catch(() => '');
  return text.split('\n').flatMap((line) => {
    try {
      return [JSON.parse(line) as JournalEntry];
    } catch {
      return []; // The end of the file, or a line that a crash cut off.
    }
  });
}

export class Journal implements AsyncDisposable {
  readonly #file: FileHandle;
  readonly #directory: string;
  #written: Promise<unknown> = Promise.resolve();
  /** How long the last entry that was written durably took to be on disk. */
  syncMs = 0;

  private constructor(file: FileHandle, directory: string) {
    this.#file = file;
    this.#directory = directory;
  }

  static async open(id: string): Promise<Journal> {
    const directory = migrationDirectory(id);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    return new Journal(await open(join(directory, 'journal.ndjson'), 'a', 0o600), directory);
  }

  /** Appends an entry, after those that are still being written. */
  async write(event: JournalEvent, details: object = {}): Promise<void> {
    const line = `${JSON.stringify({ at: new Date().toISOString(), event, ...details })}\n`;
    const writing = this.#written.then(() => this.#file.appendFile(line));
    this.#written = writing.catch(() => {});
    await writing;
  }

  /** Appends an entry and waits until it is on disk: for what must be known after a crash. */
  async writeDurably(event: JournalEvent, details: object = {}): Promise<void> {
    await this.write(event, details);
    const startMs = performance.now();
    await this.#file.datasync();
    this.syncMs = performance.now() - startMs;
  }

  /** Keeps the report, whole or not at all. */
  async writeReport(report: MigrationReport): Promise<void> {
    const path = join(this.#directory, 'report.json');
    await writeFile(`${path}.new`, `${JSON.stringify(report, null, 2)}\n`, { mode: 0o600 });
    await rename(`${path}.new`, path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#written;
    await this.#file.close();
  }
}
