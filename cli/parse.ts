/** From words to a verb and its arguments, by yargs; from yargs's complaints to sentences that say what is right. */
import yargs, { type Argv, type Options } from 'yargs';
import { commonOptions } from './options.js';
import { nearest } from './suggest.js';
import { UsageError } from './usageError.js';
import type { Verb, VerbArguments, VerbGroup, VerbOptions, VerbTable } from './verb.js';

export type Parsed =
  | { readonly kind: 'run'; readonly verb: Verb; readonly args: VerbArguments & Readonly<Record<string, unknown>> }
  | { readonly kind: 'text'; readonly text: string };

export interface ParseEnvironment {
  readonly version: string;
  /** Columns for help. */
  readonly width: number;
}

/** Verbs that later versions will have, so that nobody takes a newer manual for a typing error. */
const laterVerbs = ['switch', 'status', 'recover'];

const epilogue = [
  'Exit codes say where the guest is:',
  '  0  moved: on the destination',
  '  1  failed: on the source, as before',
  '  2  usage error: nothing was tried',
  '  3  cancelled: on the source',
  '  4  a host was out of reach: nothing was changed',
  '  5  preflight refused: nothing was changed',
  '  6  on the destination, and still needs the source',
  '  7  unknown: the source is kept paused',
].join('\n');

/** @throws UsageError */
export async function parse(argv: readonly string[], verbs: VerbTable, environment: ParseEnvironment): Promise<Parsed> {
  const path = findVerb(argv, verbs);
  let parsed: Parsed | null = null;
  const selected = (verb: Verb, raw: Record<string, unknown>): void => {
    const rest = Array.isArray(raw['--']) ? raw['--'].map(String) : [];
    parsed = {
      kind: 'run',
      verb,
      args: { ...raw, json: raw.json === true, inventory: raw.inventory as string | undefined, rest },
    };
  };
  const parser = build(verbs, environment, selected).fail((message: string | null, error: Error | undefined) => {
    throw error instanceof UsageError ? error : explain(message ?? error?.message ?? '', path);
  });
  if (path.verb === null) groupCommonOptions(parser);
  if (path.verb === null && path.unknown === null && path.group === null && !asksForText(argv)) {
    throw new UsageError('no verb was given', await parser.getHelp());
  }
  await parser.parseAsync([...argv], {}, (_error, _args, text) => {
    // yargs ends its help without a line end, and its version too.
    if (text !== '') parsed = { kind: 'text', text };
  });
  if (parsed === null) throw new UsageError('no verb was given', helpHint(path));
  return parsed;
}

type Selected = (verb: Verb, raw: Record<string, unknown>) => void;

function build(verbs: VerbTable, environment: ParseEnvironment, selected: Selected): Argv {
  const parser = yargs()
    .scriptName('vmmig')
    .locale('en')
    .usage('$0: move running QEMU guests between hosts\n\nUsage: $0 <verb>')
    .updateStrings({ 'Commands:': 'Verbs:' })
    // `--no-agent` is an option of its own, so that help and completion show what is typed.
    .parserConfiguration({
      'boolean-negation': false,
      'populate--': true,
      'duplicate-arguments-array': false,
      'dot-notation': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
    })
    .strict()
    .exitProcess(false)
    .showHelpOnFail(false)
    .wrap(environment.width)
    .version(environment.version)
    .help()
    .alias('help', 'h')
    .options(yargsOptions(commonOptions))
    .demandCommand(1, 'no verb was given')
    .epilogue(epilogue);
  for (const entry of verbs) {
    if (entry.kind === 'verb') addVerb(parser, entry, selected);
    else {
      parser.command(entry.name, entry.describe, (group) => {
        group.usage(`$0 ${entry.name}: ${entry.describe}`).demandCommand(1, `no verb was given after "${entry.name}"`);
        for (const verb of entry.verbs) addVerb(group, verb, selected);
        return group;
      });
    }
  }
  return parser;
}

function addVerb(parser: Argv, verb: Verb, selected: Selected): void {
  parser.command<Record<string, unknown>>(
    verb.command,
    // The types leave out that `false` hides a command.
    verb.describe as string,
    (own) => {
      for (const [name, option] of Object.entries(verb.positionals))
        own.positional(name, yargsOption(option) as Options & { type?: 'string' });
      own.options(yargsOptions(verb.options)).group(Object.keys(verb.options), 'Options:');
      groupCommonOptions(own);
      for (const [command, explanation] of verb.examples) own.example(`$0 ${command}`, explanation);
      return own.epilogue(verb.epilogue ?? '');
    },
    (args) => selected(verb, args),
  );
}

/** Help shows groups in the order in which they are made, so this comes after a verb's own options. */
function groupCommonOptions(parser: Argv): void {
  parser.group([...Object.keys(commonOptions), 'help', 'version'], 'With every verb:');
}

function yargsOptions(options: VerbOptions): Record<string, Options> {
  return Object.fromEntries(Object.entries(options).map(([name, option]) => [name, yargsOption(option)]));
}

function yargsOption(option: VerbOptions[string]): Options {
  const { complete: _, ...rest } = option;
  return rest;
}

function asksForText(argv: readonly string[]): boolean {
  return ['-h', '--help', '--version'].some((flag) => argv.includes(flag));
}

/** Where in the table the words lead. */
interface VerbPath {
  readonly verbs: VerbTable | readonly Verb[];
  readonly group: VerbGroup | null;
  readonly verb: Verb | null;
  /** The word that should have been a verb and is none. */
  readonly unknown: string | null;
}

function findVerb(argv: readonly string[], table: VerbTable): VerbPath {
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

function explain(message: string, path: VerbPath): UsageError {
  if (path.unknown !== null) return unknownVerb(path.unknown, path);
  const unknown = /^Unknown arguments?: (.*)$/.exec(message)?.[1]?.split(', ');
  if (unknown !== undefined) return unknownArguments([...new Set(unknown)], path);
  const missing = /^Missing required arguments?: (.*)$/.exec(message)?.[1];
  if (missing !== undefined) {
    const names = missing
      .split(', ')
      .map((name) => (Object.hasOwn(path.verb?.positionals ?? {}, name) ? `<${name}>` : `--${name}`));
    return new UsageError(`${names.join(' and ')} ${names.length > 1 ? 'are' : 'is'} missing`, helpHint(path));
  }
  const valueless = /^Not enough arguments following: (.*)$/.exec(message)?.[1];
  if (valueless !== undefined) return new UsageError(`--${valueless} needs a value`, helpHint(path));
  if (message.startsWith('Not enough non-option arguments') && path.verb !== null) {
    const wanted = path.verb.command
      .split(' ')
      .slice(1)
      .filter((part) => part.startsWith('<'));
    return new UsageError(`"${fullName(path)}" needs ${wanted.join(' ')}`, helpHint(path));
  }
  if (message.startsWith('Invalid values:')) return new UsageError(choicesText(message, path), helpHint(path));
  return new UsageError(message.replace(/\s*\n\s*/g, ' '), helpHint(path));
}

function unknownVerb(typed: string, path: VerbPath): UsageError {
  if (path.group === null && laterVerbs.includes(typed)) {
    return new UsageError(`"${typed}" comes in a later version of vmmig`, helpHint(path));
  }
  const names = path.verbs.filter((verb) => verb.kind === 'group' || verb.describe !== false).map((verb) => verb.name);
  const meant = nearest(typed, names);
  const prefix = path.group === null ? '' : `${path.group.name} `;
  return new UsageError(
    `there is no verb "${prefix}${typed}"`,
    meant === null
      ? `The verbs are ${names.map((name) => prefix + name).join(', ')}.`
      : `Did you mean "vmmig ${prefix}${meant}"?`,
  );
}

function unknownArguments(names: readonly string[], path: VerbPath): UsageError {
  const known = Object.keys({ ...commonOptions, ...path.verb?.options, help: null });
  // yargs reports `--max-downtme` also in camel case; an extra word is reported as it was typed.
  const typed = names.find((name) => !/[A-Z]/.test(name)) ?? names[0]!;
  const meant = nearest(typed, known);
  const where = `"vmmig ${fullName(path)}"`;
  if (meant !== null) return new UsageError(`${where} has no option "--${typed}"`, `Did you mean "--${meant}"?`);
  return new UsageError(`${where} does not understand "${typed}"`, helpHint(path));
}

/** yargs: `Invalid values:\n  Argument: progress, Given: "x", Choices: "auto", "tty"`. */
function choicesText(message: string, path: VerbPath): string {
  const match = /Argument: (.*?), Given: (.*?), Choices: (.*)/.exec(message);
  if (match === null) return message;
  const name = Object.hasOwn(path.verb?.positionals ?? {}, match[1]!) ? `<${match[1]}>` : `--${match[1]}`;
  return `${name}: ${match[2]} is none of ${match[3]}`;
}

function fullName(path: VerbPath): string {
  return [path.group?.name, path.verb?.name].filter((part) => part !== undefined).join(' ');
}

function helpHint(path: VerbPath): string {
  const name = fullName(path);
  return `See "vmmig ${name === '' ? '' : `${name} `}--help".`;
}
