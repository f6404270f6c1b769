/** A run directory that only one test knows, and a ledger to put there. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach } from 'vitest';
import type { Ledger } from '../../../host-service/commit/ledger.js';

export const migrationId = '20261122-051604-3fa9c1';

export function useRunDirectory(): { readonly path: string } {
  const run = { path: '' };
  beforeEach(() => {
    run.path = mkdtempSync(join(tmpdir(), 'vmmig-ledger-'));
  });
  afterEach(() => rmSync(run.path, { recursive: true, force: true }));
  return run;
}

export function ledgerOf(changes: Partial<Ledger> = {}): Ledger {
  return {
    schema: 'vmmig.ledger/1',
    migrationId,
    role: 'source',
    mode: 'switch',
    phase: 'moving',
    beganAt: '2026-11-22T05:16:04.000Z',
    changedAt: '2026-11-22T05:16:04.000Z',
    bootId: '7a5c2f0e-4f0f-4d0a-8f4e-0d5d3c1b2a19',
    guest: { name: 'vm1', qmpPath: '/run/vm1.qmp', agentPath: null, process: { pid: 4711, startTime: 123456 } },
    service: { pid: 4712, startTime: 123457 },
    peer: { host: 'root@hostB:22', runDir: '/run/vmmig', bootId: null },
    link: { host: '192.0.2.7', port: 49152, key: Buffer.alloc(32, 7).toString('base64') },
    ...changes,
  };
}
