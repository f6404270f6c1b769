/** From words to a verb and its arguments, by yargs. What it complains about is put into words in complaints.ts. */
import yargs, { type Argv, type Options } from 'yargs';
import { explain } from './complaints.js';
import { commonOptions } from './options.js';
import { UsageError } from './usageError.js';
import type { Verb, VerbArguments, VerbOptions, VerbTable } from './verb.js';
import { findVerb, helpHint } from './verbPath.js';

export type Parsed =
  | { readonly kind: 'run'; readonly verb: Verb; readonly args: VerbArguments & Readonly<Record<string, unknown>> }
  | { readonly kind: 'text'; readonly text: string };

export interface ParseEnvironment {
  readonly version: string;
  /** Columns for help. */
  readonly width: number;
}

const epilogue = [
  'Exit codes say where the guest is:',
  '  0  moved: on the destination',
  '  1  failed: on the source, as before',
  '  2  usage error: nothing was tried',
  '  3  cancelled: on the source',
  '  4  a host was out of reach: nothing was changed',
  '  5  preflight refused: nothing was changed',
  '  6  on the destination, and still needs the source',
  '  7  unknown: the source is kept paused, or has ended',
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
  if (path.verb !== null) makeNoHelpAhead(parser);
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

interface Internals {
  getInternalMethods?(): { getUsageInstance?(): { cacheHelpMessage?: () => void } };
}

/**
 * yargs makes up a verb's help after it has found the verb, also when nobody asks for it, which takes as long as all of its
 * other work. It has no option for that: this reaches into the (pinned) version's internals, and does nothing to others.
 */
function makeNoHelpAhead(parser: Argv): void {
  const usage = (parser as unknown as Internals).getInternalMethods?.().getUsageInstance?.();
  if (usage?.cacheHelpMessage !== undefined) usage.cacheHelpMessage = () => {};
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
