/**
 * The closed list of error codes. Scripts match on the codes, people are shown the words, and
 * docs/errors.md is written from this table (a test holds the two together).
 */

export interface ErrorHelp {
  /** What happened. */
  readonly summary: string;
  readonly whereIsTheGuest: string;
  readonly nextStep: string;
}

const unmoved = 'On the source, running as before: nothing was changed.';

export const errorCodes = {
  VMMIG_INTERNAL: {
    summary: 'Something happened that vmmig has no name for: a defect in vmmig.',
    whereIsTheGuest: unmoved,
    nextStep: 'Please report it with the output of `vmmig show`.',
  },
} as const satisfies Readonly<Record<string, ErrorHelp>>;

export type ErrorCode = keyof typeof errorCodes;

/** The words for a code; null for one that a newer vmmig on the other host has and this one does not. */
export function explainError(code: string): ErrorHelp | null {
  return Object.hasOwn(errorCodes, code) ? errorCodes[code as ErrorCode] : null;
}
