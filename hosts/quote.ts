/** From an argument vector to the one string that SSH's exec request carries, which the login shell then parses. */

/** Needs no quotes in any shell. `=` is left out: a first word with one would be an assignment. */
const PLAIN = /^[A-Za-z0-9_@%+:,./-]+$/;

/**
 * Quotes arguments for a POSIX shell, such that it hands each on unchanged, whatever is in it.
 * @throws RangeError for a NUL: no process can be given one.
 */
export function quoteShell(argv: readonly string[]): string {
  return argv.map(quoteWord).join(' ');
}

function quoteWord(word: string): string {
  if (word.includes('\0')) throw new RangeError('an argument must not contain a NUL character');
  return PLAIN.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
