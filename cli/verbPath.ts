/** Which verb the words of a command line name, or fail to name. */
import type { Verb, VerbGroup, VerbTable } from './verb.js';

/** Where in the table the words lead. */
export interface VerbPath {
  readonly verbs: VerbTable | readonly Verb[];
  readonly group: VerbGroup | null;
  readonly verb: Verb | null;
  /** The word that should have been a verb and is none. */
  readonly unknown: string | null;
}

export function findVerb(argv: readonly string[], table: VerbTable): VerbPath {
  const words = wordsOf(argv);
  const first = words[0];
  const entry = table.find((candidate) => candidate.name === first);
  if (entry === undefined) return { verbs: table, group: null, verb: null, unknown: first ?? null };
  if (entry.kind === 'verb') return { verbs: table, group: null, verb: entry, unknown: null };
  const verb = entry.verbs.find((candidate) => candidate.name === words[1]) ?? null;
  return { verbs: entry.verbs, group: entry, verb, unknown: verb === null ? (words[1] ?? null) : null };
}

/** The words that are neither options nor the value of `--inventory`, the one option that may precede a verb and takes one. */
function wordsOf(argv: readonly string[]): string[] {
  const end = argv.indexOf('--');
  const before = end < 0 ? argv : argv.slice(0, end);
  return before.filter((word, index) => !word.startsWith('-') && before[index - 1] !== '--inventory');
}

/** `host add`; empty when there is no such verb. */
export function fullName(path: VerbPath): string {
  return [path.group?.name, path.verb?.name].filter((part) => part !== undefined).join(' ');
}

export function helpHint(path: VerbPath): string {
  const name = fullName(path);
  return `See "vmmig ${name === '' ? '' : `${name} `}--help".`;
}
