import { execFileSync } from 'node:child_process';
import { chmod, mkdir, readdir, readFile, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { decide } from '../../../host-service/commit/decision.js';
import {
  readLedger,
  readLedgers,
  removeLedger,
  updateLedger,
  writeLedger,
} from '../../../host-service/commit/ledger.js';
import { ledgerOf, migrationId, useRunDirectory } from './runDirectory.js';

const run = useRunDirectory();
const file = () => join(run.path, migrationId, 'ledger-source.json');
const source = { migrationId, role: 'source' } as const;

describe('A ledger', () => {
  it('is read as it was written, and nobody else may read it', async () => {
    const ledger = ledgerOf();
    await writeLedger(run.path, ledger);
    expect(await readLedgers(run.path)).toEqual({ ledgers: [ledger], unreadable: [] });
    expect((await stat(file())).mode & 0o777).toBe(0o600);
    expect((await stat(join(run.path, migrationId))).mode & 0o777).toBe(0o700);
  });

  it('is there for each migration and role, in the order in which they began', async () => {
    const later = '20261122-060000-000001';
    await writeLedger(run.path, ledgerOf({ migrationId: later }));
    await writeLedger(run.path, ledgerOf({ role: 'destination' }));
    await writeLedger(run.path, ledgerOf());
    const { ledgers } = await readLedgers(run.path);
    expect(ledgers.map((ledger) => [ledger.migrationId, ledger.role])).toEqual([
      [migrationId, 'source'],
      [migrationId, 'destination'],
      [later, 'source'],
    ]);
  });

  it('is not there in a run directory that does not exist, or has other things in it', async () => {
    expect(await readLedgers(join(run.path, 'nowhere'))).toEqual({ ledgers: [], unreadable: [] });
    await writeFile(join(run.path, 'a-file'), '');
    await mkdir(join(run.path, 'a-directory'));
    await mkdir(join(run.path, 'no migration!'));
    expect(await readLedgers(run.path)).toEqual({ ledgers: [], unreadable: [] });
  });

  it('keeps what an update does not name', async () => {
    await writeLedger(run.path, ledgerOf());
    const peerBootId = '00000000-1111-2222-3333-444444444444';
    await updateLedger(run.path, source, { phase: 'pulling', process: null, peerBootId });
    const { ledgers } = await readLedgers(run.path);
    const { guest, peer } = ledgerOf();
    expect(ledgers).toEqual([
      {
        ...ledgerOf({ phase: 'pulling', guest: { ...guest, process: null }, peer: { ...peer, bootId: peerBootId } }),
        changedAt: expect.any(String),
      },
    ]);
  });

  it('takes in all updates that are made at once', async () => {
    await writeLedger(run.path, ledgerOf());
    const process = { pid: 1, startTime: 2 };
    await Promise.all([
      updateLedger(run.path, source, { phase: 'committing' }),
      updateLedger(run.path, source, { process }),
      updateLedger(run.path, source, { service: null }),
      updateLedger(run.path, source, { link: null }),
    ]);
    const ledger = await readLedger(run.path, migrationId, 'source');
    expect(ledger).toMatchObject({ phase: 'committing', guest: { process }, service: null, link: null });
  });

  it('is whole to whoever reads it while others write it', async () => {
    await writeLedger(run.path, ledgerOf());
    const writes = Array.from({ length: 20 }, (_, pid) =>
      writeLedger(run.path, ledgerOf({ service: { pid: pid + 1, startTime: pid + 1 } })),
    );
    const reads = Array.from({ length: 60 }, () => readLedgers(run.path));
    for (const { ledgers, unreadable } of await Promise.all(reads)) {
      expect(unreadable).toEqual([]);
      expect(ledgers[0]!.service?.pid).toBe(
        ledgers[0]!.service?.startTime === 123457 ? 4712 : ledgers[0]!.service?.startTime,
      );
    }
    await Promise.all(writes);
    expect(await readdir(join(run.path, migrationId))).toEqual(['ledger-source.json']);
  });

  it('is not made by an update, nor written when it is not a ledger', async () => {
    const update = updateLedger(run.path, source, { phase: 'pulling' });
    await expect(update).rejects.toMatchObject({ code: 'VMMIG_LEDGER_INVALID' });
    const write = writeLedger(run.path, ledgerOf({ migrationId: '../elsewhere' }));
    await expect(write).rejects.toMatchObject({ code: 'VMMIG_LEDGER_INVALID' });
    expect(await readdir(run.path)).toEqual([]);
  });

  it('says so when it cannot be written', async () => {
    await writeFile(join(run.path, migrationId), 'in the way');
    await expect(writeLedger(run.path, ledgerOf())).rejects.toMatchObject({ code: 'VMMIG_LEDGER_WRITE' });
  });

  it('goes with its decision, its drafts and its directory, and leaves what is not its own', async () => {
    await writeLedger(run.path, ledgerOf());
    await decide(run.path, migrationId, 'source', 'held');
    await writeFile(`${file()}.a-draft`, 'torn');
    await writeLedger(run.path, ledgerOf({ role: 'destination' }));
    await removeLedger(run.path, migrationId, 'source');
    expect(await readdir(join(run.path, migrationId))).toEqual(['ledger-destination.json']);
    await removeLedger(run.path, migrationId, 'destination');
    await removeLedger(run.path, migrationId, 'destination');
    expect(await readdir(run.path)).toEqual([]);
  });
});

describe('What lies in the place of a ledger', () => {
  async function unreadable(): Promise<string> {
    const listing = await readLedgers(run.path);
    expect(listing.ledgers).toEqual([]);
    expect(listing.unreadable.map(({ path }) => path)).toEqual([file()]);
    return listing.unreadable[0]!.reason;
  }

  it('is told and not used when it is torn, at whatever byte', async () => {
    await writeLedger(run.path, ledgerOf());
    const { length } = await readFile(file());
    for (let size = length - 2; size >= 0; size -= 37) {
      await truncate(file(), size);
      expect(await unreadable()).toMatch(/is not JSON/);
    }
  });

  it.each([
    ['null', 'null'],
    ['a list', '[]'],
    ['random bytes', Buffer.from([0, 255, 128, 13]).toString('latin1')],
    ['another version', JSON.stringify({ ...ledgerOf(), schema: 'vmmig.ledger/2' })],
    ['a field too many', JSON.stringify({ ...ledgerOf(), extra: 1 })],
    ['a relative socket', JSON.stringify(ledgerOf({ guest: { ...ledgerOf().guest, qmpPath: 'vm1.qmp' } }))],
    ['every process', JSON.stringify(ledgerOf({ service: { pid: -1, startTime: 0 } }))],
    ['a short key', JSON.stringify(ledgerOf({ link: { host: 'b', port: 1, key: 'AAAA' } }))],
    ['another migration', JSON.stringify(ledgerOf({ migrationId: '20261122-051604-000000' }))],
    ['another role', JSON.stringify(ledgerOf({ role: 'destination' }))],
    ['a giant', ' '.repeat(70_000)],
  ])('is told and not used when it is %s', async (_, content) => {
    await writeLedger(run.path, ledgerOf());
    await writeFile(file(), content);
    await unreadable();
  });

  it('is told and not used when it is a link, a pipe, a directory, or open to others', async () => {
    await mkdir(join(run.path, migrationId));
    const elsewhere = join(run.path, 'elsewhere.json');
    await writeFile(elsewhere, JSON.stringify(ledgerOf()), { mode: 0o600 });
    await symlink(elsewhere, file());
    expect(await unreadable()).toMatch(/cannot be read/);
    execFileSync('rm', [file()]);
    execFileSync('mkfifo', ['-m', '600', file()]);
    expect(await unreadable()).toMatch(/not a plain file/);
    execFileSync('rm', [file()]);
    await mkdir(file(), { mode: 0o700 });
    expect(await unreadable()).toMatch(/not a plain file/);
    execFileSync('rmdir', [file()]);
    await writeLedger(run.path, ledgerOf());
    await chmod(file(), 0o640);
    expect(await unreadable()).toMatch(/open to other users/);
  });
});
