/** The exit code of a command that ended with an error instead of a report. */
import { exitCodes } from '../migrate/report.js';
import { UsageError } from './usageError.js';

export function exitCodeOfError(error: unknown): number {
  if (error instanceof UsageError) return exitCodes.usage;
  const code = errorCodeOf(error);
  // Found before anything is tried.
  if (code !== null && /^VMMIG_(USAGE_|INVENTORY_|ALREADY_MIGRATING$)/.test(code)) return exitCodes.usage;
  if (code !== null && /^VMMIG_(SSH|HOST)_/.test(code)) return exitCodes.unreachable;
  // As where there is a report: nothing was changed, and that the guest runs is more than is known.
  if (code !== null && /^VMMIG_GUEST_NOT_(FOUND|RUNNING)$/.test(code)) return exitCodes.refused;
  return exitCodes.failed;
}

export function errorCodeOf(error: unknown): string | null {
  const code: unknown = error instanceof Error && 'code' in error ? error.code : null;
  return typeof code === 'string' && code.startsWith('VMMIG_') ? code : null;
}
