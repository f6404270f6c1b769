import { readFile } from 'node:fs/promises';
import { type ProcessId, processId } from '../hypervisor/index.js';
import type { Ledger, Role } from './commit/index.js';
import type { GuestAddress } from './protocol.js';

export interface LedgerFacts {
  readonly migrationId: string;
  readonly mode: Ledger['mode'];
  readonly guest: GuestAddress;
  readonly peer: { readonly host: string; readonly runDir: string };
  readonly link: Ledger['link'];
}

/** What a host notes of a migration when it begins. @param qemu - null while it is not started */
export async function newLedger(role: Role, facts: LedgerFacts, qemu: ProcessId | null): Promise<Ledger> {
  const { migrationId, mode, guest, peer, link } = facts;
  const now = new Date().toISOString();
  return {
    schema: 'vmmig.ledger/1',
    migrationId,
    role,
    mode,
    phase: 'preparing',
    beganAt: now,
    changedAt: now,
    bootId: await bootId(),
    guest: { ...guest, process: qemu === null ? null : { pid: qemu.pid, startTime: qemu.startTime } },
    service: await processId(process.pid),
    peer: { ...peer, bootId: null },
    link,
  };
}

export async function bootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
}
