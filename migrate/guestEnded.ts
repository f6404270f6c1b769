/** What is said of a guest that runs nowhere: its QEMU ended on the source before it could go. */
import { toVmmigError, VmmigError } from './errors.js';
import type { PhaseName } from './report.js';

/** @param cause - what the migration noticed of it, or what ended it besides */
export function guestEnded(vm: string, from: string, cause: unknown, phase: PhaseName | null): VmmigError {
  const text = `the QEMU of ${vm} on ${from} has ended, and ${vm} with it: start it again from its disk`;
  const noticed = cause === null ? '' : ` (${toVmmigError(cause).message})`;
  return new VmmigError('VMMIG_GUEST_ENDED', `${text}${noticed}`, { phase, vmLocation: 'unknown', cause });
}
