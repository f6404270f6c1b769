/** What the recovery of a migration is about, and what it works with. */
import type { Inventory, InventoryHost } from '../hosts/index.js';
import type { Journal, JournalEntry } from './journal.js';
import type { Guest } from './locate.js';
import type { Sides } from './prepared.js';
import type { Recorder } from './recorder.js';
import type { MigrationMode, MigrationReport } from './report.js';
import type { Part } from './survey.js';

/** A migration that is to be brought to its end. */
export interface Unfinished {
  readonly id: string;
  readonly vm: string;
  readonly mode: MigrationMode;
  readonly from: InventoryHost;
  readonly to: InventoryHost;
  /** ISO 8601, UTC. */
  readonly beganAt: string;
  /** What the hosts have noted, from both, from one or from none. */
  readonly parts: readonly Part[];
  readonly journal: readonly JournalEntry[];
}

/** What a recovery works with. */
export interface Recovery {
  readonly unfinished: Unfinished;
  readonly inventory: Inventory;
  readonly guest: Guest;
  /** Opened as they are needed. */
  readonly sides: Sides;
  readonly recorder: Recorder;
  readonly journal: Journal;
  /** The report that the command left which began; null when it left none here. */
  readonly before: MigrationReport | null;
  /** The operator does not want to wait for the end. */
  readonly leave: AbortSignal | undefined;
}
