/** The one error that leaves `migrate/`: what happened, where the guest is, what to do next. */
import type { PhaseName, VmLocation } from './report.js';

export interface VmmigErrorContext {
  readonly phase?: PhaseName | null;
  readonly vmLocation?: VmLocation;
  readonly retryable?: boolean;
  readonly cause?: unknown;
}

export class VmmigError extends Error {
  override readonly name = 'VmmigError';
  readonly phase: PhaseName | null;
  readonly vmLocation: VmLocation;
  readonly retryable: boolean;

  constructor(
    readonly code: string,
    message: string,
    context: VmmigErrorContext = {},
  ) {
    super(message, context.cause === undefined ? {} : { cause: context.cause });
    this.phase = context.phase ?? null;
    this.vmLocation = context.vmLocation ?? 'source';
    this.retryable = context.retryable ?? false;
  }
}

/** Any thrown value as a `VmmigError`; errors of the lower modules keep their `code`. */
export function toVmmigError(thrown: unknown, context: VmmigErrorContext = {}): VmmigError {
  if (thrown instanceof VmmigError) {
    if (thrown.phase !== null || context.phase == null) return thrown;
    const { code, message, retryable } = thrown;
    return new VmmigError(code, message, { retryable, cause: thrown.cause, ...context });
  }
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  const code = 'code' in error && typeof error.code === 'string' && error.code.startsWith('VMMIG_') ? error.code : null;
  const retryable = 'retryable' in error && error.retryable === true;
  return new VmmigError(code ?? 'VMMIG_INTERNAL', error.message, { retryable, ...context, cause: error });
}
