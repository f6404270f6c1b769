/** The command was not understood: nothing was tried, and the message says what is right. Exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';

  constructor(
    message: string,
    /** What to type instead, or where to look; shown on a line of its own. */
    readonly hint: string | null = null,
  ) {
    super(message);
  }
}
