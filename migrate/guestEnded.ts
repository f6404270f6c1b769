/** What is said of a guest that runs nowhere: its QEMU has ended. */
import { toVmmigError, VmmigError } from './errors.js';
import type { PhaseName } from './report.js';

/** On the source, before it could go. @param cause - what the migration noticed of it, or what ended it besides */
export function guestEnded(vm: string, from: string, cause: unknown, phase: PhaseName | null): VmmigError {
  const text = `the QEMU of ${vm} on ${from} has ended, and ${vm} with it: start it again from its disk`;
  const noticed = cause === null ? '' : ` (${toVmmigError(cause).message})`;
  return new VmmigError('VMMIG_GUEST_ENDED', `${text}${noticed}`, { phase, vmLocation: 'unknown', cause });
}

/** It had been handed over, or may have been, and neither host has a QEMU of it any more. */
export function guestEndedThere(vm: string, from: string, to: string): VmmigError {
  const text = `the QEMUs of ${vm} on ${from} and on ${to} have ended, and ${vm} with them: start it again from its disk`;
  return new VmmigError('VMMIG_GUEST_ENDED', text, { vmLocation: 'unknown' });
}
