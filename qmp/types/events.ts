/** The events that QEMU sends, and what the ones vmmig acts on carry. Source: QEMU's qapi/ (7.2 to 10.0). */
import type { MigrationStatus } from './migration.js';

type Nothing = Record<string, never>;

/** Data of the events vmmig uses; the rest are `Record<string, unknown>`. */
export interface QmpEvents {
  STOP: Nothing;
  RESUME: Nothing;
  POWERDOWN: Nothing;
  RESET: { guest: boolean; reason: string };
  SHUTDOWN: { guest: boolean; reason: string };
  /** Sent only with the migration capability `events`. */
  MIGRATION: { status: MigrationStatus };
  /** The number of passes over RAM so far; sent only with the migration capability `events`. */
  MIGRATION_PASS: { pass: number };
  DEVICE_DELETED: { device?: string; path: string };
  /** The guest opened or closed a virtio-serial port. */
  VSERPORT_CHANGE: { id: string; open: boolean };
  BLOCK_IO_ERROR: { device: string; 'node-name'?: string; operation: 'read' | 'write'; action: string; reason: string };
  JOB_STATUS_CHANGE: { id: string; status: string };
}

interface EventNamed<E extends string> {
  readonly event: E;
  readonly data: E extends keyof QmpEvents ? QmpEvents[E] : Record<string, unknown>;
  /** The host's clock; `seconds` is -1 when QEMU could not read it. */
  readonly timestamp: { readonly seconds: number; readonly microseconds: number };
}

/** An event as it came. `QmpEvent<'MIGRATION'>` has typed data. */
export type QmpEvent<E extends string = string> = E extends string ? EventNamed<E> : never;
