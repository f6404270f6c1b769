/** A state directory that only one test knows, as VMMIG_STATE_DIR. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach } from 'vitest';
import type { MigrationReport } from '../../migrate/report.js';

/** Gives every test of the file its own state directory. */
export function useStateDirectory(): { readonly path: string } {
  const previous = process.env.VMMIG_STATE_DIR;
  const state = { path: '' };
  beforeEach(() => {
    state.path = mkdtempSync(join(tmpdir(), 'vmmig-state-'));
    process.env.VMMIG_STATE_DIR = state.path;
  });
  afterEach(() => {
    rmSync(state.path, { recursive: true, force: true });
    if (previous === undefined) delete process.env.VMMIG_STATE_DIR;
    else process.env.VMMIG_STATE_DIR = previous;
  });
  return state;
}

export const start = { id: '20261122-051604-3fa9c1', vm: 'vm1', from: 'hostA', to: 'hostB', mode: 'teleport' } as const;

export function reportOf(changes: Partial<MigrationReport> = {}): MigrationReport {
  return {
    schema: 'vmmig.report/1',
    ...start,
    result: 'moved',
    vmLocation: 'destination',
    error: null,
    startedAt: '2026-11-22T05:16:04.000Z',
    totalMs: 1,
    downtimeMs: 1,
    switchoverMs: 1,
    releasedMs: 1,
    exposureMs: null,
    capture: 'stream',
    recoveredAt: null,
    phases: [],
    bytes: { wire: 0, stream: 0, restored: 0 },
    pages: { seen: 0, zero: 0, teleported: 0, sent: 0, mismatched: 0, faulted: 0 },
    agent: null,
    link: { connections: 0, rttMs: 0, reconnects: 0 },
    faults: null,
    verified: null,
    findings: [],
    opaqueSections: [],
    ...changes,
  };
}
