/** Brings a teleport to its end whose command was killed, or lost the answer, around the commit point. */
import type { Recovery } from './recovery.js';
import type { MigrationReport } from './report.js';
import { concludeThere, settle } from './settle.js';

export async function recoverTeleport(recovery: Recovery): Promise<MigrationReport> {
  const { unfinished, recorder } = recovery;
  const settled = await settle(recovery);
  if (!('end' in settled)) return settled;
  if (settled.end === 'moved') {
    await concludeThere(recovery);
  } else {
    const text = `${unfinished.vm} runs on ${unfinished.to.name}, but its paused remains on ${unfinished.from.name} could not be ended`;
    recorder.notice('warn', 'VMMIG_SOURCE_NOT_RELEASED', text);
  }
  return await recorder.finish('moved', 'destination', null);
}
