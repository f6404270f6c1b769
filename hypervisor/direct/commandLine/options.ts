/**
 * QEMU's command line as a list of options:
 *
 *     argv   := binary item*
 *     item   := ('-' | '--') name [argument] | image
 *     argument of most options := part (',' part)*      a comma inside a part is written twice
 *     part   := key '=' value | word                    the first word is the value of an implied key
 *     argument of some := a JSON object
 *
 * Source: QEMU, system/vl.c (lookup_opt), util/keyval.c and util/qemu-option.c.
 */

export interface CommandLineOption {
  /** Without dashes; null for a bare image file, which QEMU takes for `-hda`. */
  readonly name: string | null;
  readonly argument: string | null;
}

/** The options without an argument, of all versions from 5.0 on. Every other one takes the next item. */
const flags = new Set(
  (
    'S alt-grab async-teardown audio-help ctrl-grab curses daemonize enable-fips enable-kvm enable-sync-profile ' +
    'full-screen h help jitdump mem-prealloc no-acpi no-fd-bootchk no-frame no-hpet no-quit no-reboot no-shutdown no-user-config ' +
    'nodefaults nographic old-param one-insn-per-tb only-migratable perfmap portrait preconfig s sdl semihosting singlestep ' +
    'snapshot usb version win2k-hack xen-attach xen-domid-restrict'
  ).split(' '),
);

export function takesArgument(name: string): boolean {
  return !flags.has(name);
}

/** @param args the command line without the binary */
export function parseOptions(args: readonly string[]): CommandLineOption[] {
  const options: CommandLineOption[] = [];
  for (let at = 0; at < args.length; at += 1) {
    const item = args[at]!;
    const name = /^--?(.+)$/s.exec(item)?.[1];
    if (name === undefined) options.push({ name: null, argument: item });
    else if (!takesArgument(name)) options.push({ name, argument: null });
    else {
      at += 1;
      options.push({ name, argument: args[at] ?? null });
    }
  }
  return options;
}

export function formatOptions(options: readonly CommandLineOption[]): string[] {
  return options.flatMap(({ name, argument }) => [
    ...(name === null ? [] : [`-${name}`]),
    ...(argument === null ? [] : [argument]),
  ]);
}

export interface OptionParts {
  /** The first part when it has no key: the driver, type, back end or address. */
  readonly implied: string | null;
  /** In order. Members of JSON objects have dotted keys; a word without a value is `on`. */
  readonly entries: readonly (readonly [key: string, value: string])[];
}

export function parseArgument(argument: string): OptionParts {
  if (argument.startsWith('{')) {
    try {
      return { implied: null, entries: flatten('', JSON.parse(argument)) };
    } catch {
      return { implied: argument, entries: [] };
    }
  }
  let implied: string | null = null;
  const entries: [string, string][] = [];
  for (const [index, part] of splitParts(argument).entries()) {
    const equals = part.indexOf('=');
    if (equals > 0) entries.push([part.slice(0, equals), part.slice(equals + 1)]);
    else if (index === 0) implied = part;
    else entries.push([part, 'on']);
  }
  return { implied, entries };
}

/** The last value of a key, as the last one wins with QEMU. */
export function lastValue({ entries }: OptionParts, key: string): string | undefined {
  return entries.findLast(([name]) => name === key)?.[1];
}

/** Whether a switch is on; one that is absent is not. */
export function isOn(value: string | undefined): boolean {
  return value !== undefined && !['off', 'no', 'false', 'n'].includes(value);
}

function splitParts(argument: string): string[] {
  const parts = argument.match(/(?:[^,]|,,)+/g) ?? [];
  return parts.map((part) => part.replaceAll(',,', ','));
}

function flatten(key: string, value: unknown): [string, string][] {
  if (typeof value !== 'object' || value === null) return [[key, String(value)]];
  return Object.entries(value).flatMap(([name, member]) => flatten(key === '' ? name : `${key}.${name}`, member));
}
