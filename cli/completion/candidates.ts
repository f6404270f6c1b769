/**
 * What could stand where the cursor is, from the table of verbs. One candidate a line:
 *
 *     value TAB description
 *     :files                  (alone) the shell completes file names itself
 */
import { commonOptions } from '../options.js';
import type { ValueHint, Verb, VerbOption, VerbOptions, VerbTable } from '../verb.js';
import type { Names } from './names.js';

export interface Candidate {
  readonly value: string;
  readonly description: string;
}

export const completeFiles = ':files';

/**
 * @param words what follows `vmmig` on the line; the last one is being typed and may be empty
 * @param names asked only when a name is wanted, with the `--inventory` that the line gives
 */
export async function candidates(
  words: readonly string[],
  table: VerbTable,
  names: (inventoryPath: string | undefined) => Promise<Names>,
): Promise<readonly Candidate[] | typeof completeFiles> {
  // bash makes words of their own of `=` signs.
  const typed = words.at(-1) === '=' ? '' : (words.at(-1) ?? '');
  const before = words.slice(0, -1).filter((word) => word !== '=');
  if (before.includes('--')) return [];
  const line = readLine(before, table);
  const valuesOf = async (option: VerbOption, prefix: string): Promise<readonly Candidate[] | typeof completeFiles> => {
    if (option.choices !== undefined)
      return matching(
        option.choices.map((choice) => plain(String(choice))),
        prefix,
      );
    if (option.complete === 'file') return completeFiles;
    if (option.complete === undefined) return [];
    return matching(await named(option.complete, () => names(line.inventory)), prefix);
  };
  if (line.valueOf !== null) return valuesOf(line.valueOf, typed);
  const equals = /^(--[^=]+)=(.*)$/s.exec(typed);
  if (equals !== null) {
    const option = line.options[equals[1]!.slice(2)];
    const values = option === undefined ? [] : await valuesOf(option, equals[2]!);
    return values === completeFiles
      ? values
      : values.map((value) => ({ ...value, value: `${equals[1]}=${value.value}` }));
  }
  if (typed.startsWith('-')) return matching(optionNames(line.options, before), typed);
  if (line.verb === null) return matching(verbNames(line.table), typed);
  const positional = Object.values(line.verb.positionals)[line.positionals];
  return positional === undefined ? [] : valuesOf(positional, typed);
}

interface Line {
  readonly table: VerbTable;
  readonly verb: Verb | null;
  readonly options: VerbOptions;
  /** Words that filled positionals. */
  readonly positionals: number;
  /** The option whose value is being typed. */
  readonly valueOf: VerbOption | null;
  readonly inventory: string | undefined;
}

function readLine(words: readonly string[], root: VerbTable): Line {
  let table = root;
  let verb: Verb | null = null;
  let options: VerbOptions = commonOptions;
  let positionals = 0;
  let awaited: VerbOption | null = null;
  let valueName = '';
  let inventory: string | undefined;
  for (const word of words) {
    if (awaited !== null) {
      if (valueName === 'inventory') inventory = word;
      awaited = null;
    } else if (word.startsWith('--')) {
      const [name = '', value] = word.slice(2).split('=', 2);
      const option = options[name];
      if (name === 'inventory') inventory = value;
      if (option !== undefined && option.type !== 'boolean' && value === undefined) {
        awaited = option;
        valueName = name;
      }
    } else if (verb !== null) {
      positionals++;
    } else {
      const entry = table.find((candidate) => candidate.name === word);
      if (entry?.kind === 'group') table = entry.verbs;
      if (entry?.kind === 'verb') {
        verb = entry;
        options = { ...entry.options, ...commonOptions };
      }
    }
  }
  return { table, verb, options, positionals, valueOf: awaited, inventory };
}

function verbNames(table: VerbTable): Candidate[] {
  return table.flatMap((entry) =>
    entry.describe === false ? [] : [{ value: entry.name, description: entry.describe }],
  );
}

function optionNames(options: VerbOptions, used: readonly string[]): Candidate[] {
  const all = Object.entries(options).map(([name, option]) => ({
    value: `--${name}`,
    description: option.describe ?? '',
  }));
  return [...all, { value: '--help', description: 'Show help' }].filter(
    ({ value }) => !used.some((word) => word === value || word.startsWith(`${value}=`)),
  );
}

async function named(hint: Exclude<ValueHint, 'file'>, names: () => Promise<Names>): Promise<Candidate[]> {
  const known = await names();
  return (hint === 'guest' ? known.guests : known.hosts).map(plain);
}

function plain(value: string): Candidate {
  return { value, description: '' };
}

function matching(all: readonly Candidate[], typed: string): Candidate[] {
  return all.filter((candidate) => candidate.value.startsWith(typed));
}
