/**
 * The destination's command line, from the source's: the same machine, waiting for a migration, not running by itself.
 * Everything that is not about how QEMU starts stays as it is, in the same order.
 */
import type { Finding } from '../../finding.js';
import { checkOptions } from './check.js';
import { type Listener, listenersOf } from './listeners.js';
import { type CommandLineOption, formatOptions, parseOptions } from './options.js';
import { type RequiredPath, requiredPathsOf } from './requiredPaths.js';

/** How the source was started: parts of a `GuestInspection`. */
export interface SourceCommandLine {
  readonly argv: readonly string[];
  readonly cwd: string;
  /** What was executed, after all links and wrappers. */
  readonly executable: string;
  /** Versioned: an alias such as `q35` may stand for a newer machine on the destination. */
  readonly machineType: string;
}

export interface CommandLineOverrides {
  /** The destination's QEMU. */
  readonly binary?: string | undefined;
  /** Takes the place of the source's whole command line; its first item is the binary. */
  readonly argv?: readonly string[] | undefined;
  /** Replaced wherever they occur in an item, in this order. */
  readonly replacements?: readonly (readonly [from: string, to: string])[] | undefined;
  /** Appended. */
  readonly extra?: readonly string[] | undefined;
}

export interface CommandLinePlan {
  readonly argv: readonly string[];
  readonly cwd: string;
  /** Whether the command line has relative paths, so that it works in `cwd` only. */
  readonly cwdRequired: boolean;
  readonly requiredPaths: readonly RequiredPath[];
  readonly listeners: readonly Listener[];
  readonly findings: readonly Finding[];
}

/** What only concerns how the source came to its state. */
const DROPPED = new Set(['incoming', 'S', 'daemonize', 'loadvm', 'preconfig']);

export function deriveCommandLine(source: SourceCommandLine, overrides: CommandLineOverrides = {}): CommandLinePlan {
  const { argv, replacements = [], extra = [] } = overrides;
  const [given = '', ...args] = argv ?? source.argv;
  const binary = overrides.binary ?? (argv !== undefined || given.startsWith('/') ? given : source.executable);
  const replaced = args.map((item) => replacements.reduce((text, [from, to]) => text.replaceAll(from, to), item));
  const kept = parseOptions([...replaced, ...extra]).filter(({ name }) => name === null || !DROPPED.has(name));
  const options = [
    ...pinMachineType(withoutRepeatedDirectories(kept), source.machineType),
    { name: 'S', argument: null },
    { name: 'incoming', argument: 'defer' },
  ];
  const requiredPaths = requiredPathsOf(options, source.cwd);
  return {
    argv: [binary, ...formatOptions(options)],
    cwd: source.cwd,
    cwdRequired: requiredPaths.some(({ relative }) => relative),
    requiredPaths,
    listeners: listenersOf(options),
    findings: checkOptions(options),
  };
}

/** A wrapper that adds `-L` options would add them again on every move. */
function withoutRepeatedDirectories(options: readonly CommandLineOption[]): CommandLineOption[] {
  const seen = new Set<string | null>();
  return options.filter(({ name, argument }) => {
    if (name !== 'L') return true;
    const isNew = !seen.has(argument);
    seen.add(argument);
    return isNew;
  });
}

/** `-machine q35,…`, `-M type=q35`; several add up; none at all means the default machine. */
function pinMachineType(options: readonly CommandLineOption[], machineType: string): CommandLineOption[] {
  let pinned = false;
  const result = options.map((option) => {
    const { name, argument } = option;
    if ((name !== 'machine' && name !== 'M') || argument === null) return option;
    const type = /^(?!type=)[^=,]+(?=,|$)|(?<=^|,)type=(?:[^,]|,,)*/;
    if (!type.test(argument)) return option;
    pinned = true;
    return {
      name,
      argument: argument.replace(type, (old) => (old.startsWith('type=') ? `type=${machineType}` : machineType)),
    };
  });
  return pinned ? result : [...result, { name: 'machine', argument: machineType }];
}
