/** Brings a teleport to its end whose command was killed, or lost the answer, around the commit point. */
import * as z from 'zod';
import { abandon } from './abandon.js';
import { VmmigError } from './errors.js';
import { addressOf } from './locate.js';
import type { Recovery } from './recovery.js';
import type { MigrationReport } from './report.js';

const processSchema = z.object({ pid: z.number(), startTime: z.number(), bootId: z.string() });

export async function recoverTeleport(recovery: Recovery): Promise<MigrationReport> {
  const { unfinished, inventory, guest, sides, recorder, journal, before } = recovery;
  const { id, vm, from, to } = unfinished;
  const committing = unfinished.journal.find(({ event }) => event === 'committing');
  const process = processSchema.safeParse(committing?.destinationProcess);
  // libvirt may have been asked to give the domain another one.
  const name = typeof committing?.destinationName === 'string' ? committing.destinationName : guest.name;
  if (!process.success) {
    const text = `the journal of ${id} does not say which QEMU on ${to.name} was asked to run ${vm}`;
    return await recorder.finish('unknown', 'unknown', new VmmigError('VMMIG_UNRESOLVED', text));
  }
  const error =
    before?.error ?? ({ code: 'VMMIG_GIVEN_UP', message: 'the command ended before the migration did' } as const);
  return await abandon(
    {
      id,
      intent: { inventory, guest, to },
      request: { vm, to: to.name, from: from.name },
      recorder,
      journal,
      sides,
      commit: 'asked',
      isHeld: true,
      destinationProcess: process.data,
      directoryOn: ({ host }) => ({
        ...addressOf(guest, host.name === to.name ? name : guest.name),
        migrationId: id,
        runDir: host.runDir,
      }),
    },
    new VmmigError(error.code, error.message, { phase: 'verify' }),
  );
}
