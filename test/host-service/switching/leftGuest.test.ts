/** What a service that was not there finds of a source's QEMU. */
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import type { Ledger } from '../../../host-service/commit/index.js';
import { bootId } from '../../../host-service/newLedger.js';
import { lookAtSource } from '../../../host-service/switching/leftGuest.js';
import { processId } from '../../../hypervisor/index.js';
import { QmpClient } from '../../../qmp/index.js';
import { TestQemu } from '../../qmp/qemu.js';
import { ledgerOf } from '../commit/runDirectory.js';

const silent = { code: 'VMMIG_QEMU_SILENT' };

const look = (qemu: TestQemu, ledger: Ledger | null) => lookAtSource({ name: 'vm1', qmpPath: qemu.path }, ledger);

async function noted(qemu: TestQemu): Promise<Ledger> {
  const { guest, ...ledger } = ledgerOf({ bootId: await bootId() });
  const process = (await processId(qemu.process.pid!))!;
  return { ...ledger, guest: { ...guest, qmpPath: qemu.path, process } };
}

async function end(qemu: TestQemu): Promise<void> {
  const exited = once(qemu.process, 'exit');
  qemu.process.kill('SIGKILL');
  await exited;
}

describe("A source's QEMU", () => {
  it('that has ended is gone, whether it is still noted or was let go of, and its socket is left', async () => {
    await using qemu = await TestQemu.start('7.2');
    await (await QmpClient.connect({ path: qemu.path }, { retry: true })).close();
    const ledger = await noted(qemu);
    expect([await look(qemu, ledger), await look(qemu, null)]).toEqual(['paused', 'paused']);
    await end(qemu);
    expect([await look(qemu, ledger), await look(qemu, null)]).toEqual(['gone', 'gone']);
  });

  it('that has another client is not taken for one that has ended', { timeout: 30_000 }, async () => {
    await using qemu = await TestQemu.start('7.2');
    await using _other = await QmpClient.connect({ path: qemu.path }, { retry: true });
    const ledger = await noted(qemu);
    const found = [look(qemu, null), look(qemu, ledger)];
    for (const each of found) await expect(each).rejects.toMatchObject(silent);
  });

  it('of which only the socket answers no more is not taken for one that has ended, while it is noted and runs', async () => {
    await using qemu = await TestQemu.start('7.2');
    await (await QmpClient.connect({ path: qemu.path }, { retry: true })).close();
    const ledger = await noted(qemu);
    await using elsewhere = await TestQemu.start('7.2');
    const { guest, ...rest } = ledger;
    await end(elsewhere);
    await expect(look(elsewhere, { ...rest, guest })).rejects.toMatchObject(silent);
  });
});
