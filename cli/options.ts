/** Options that several verbs share. */

import { defaultOnNoConverge, noConvergePolicies } from '../migrate/noConvergence.js';
import { progressKinds } from './progress/renderer.js';
import { parseBandwidth, parseCount, parseDuration, UnitError } from './units.js';
import { UsageError } from './usageError.js';
import type { VerbOption } from './verb.js';

/** Understood by every verb. */
export const commonOptions = {
  inventory: {
    type: 'string',
    requiresArg: true,
    complete: 'file',
    describe: 'Inventory file',
  },
  json: {
    type: 'boolean',
    describe: 'Result as JSON on stdout, and nothing else there',
  },
  'no-color': {
    type: 'boolean',
    describe: 'No colours; NO_COLOR and TERM=dumb do the same',
  },
} as const satisfies Record<string, VerbOption>;

export const guestPositional = {
  type: 'string',
  demandOption: true,
  complete: 'guest',
  describe: 'The guest, as the inventory or libvirt names it',
} as const satisfies VerbOption;

export const progressOption = {
  choices: progressKinds,
  default: 'auto',
  requiresArg: true,
  describe: 'How to show progress, on stderr',
} as const satisfies VerbOption;

export const toOption = {
  type: 'string',
  demandOption: true,
  requiresArg: true,
  complete: 'host',
  describe: 'Destination: a host of the inventory, or user@host:port',
} as const satisfies VerbOption;

export const fromOption = {
  type: 'string',
  requiresArg: true,
  complete: 'host',
  describe: 'Host that runs the guest; found out when left open',
} as const satisfies VerbOption;

/** What every mode of migration takes. */
export const anyMigrationOptions = {
  to: toOption,
  from: fromOption,
  bandwidth: {
    type: 'string',
    requiresArg: true,
    coerce: valued('--bandwidth', parseBandwidth),
    describe: 'Most to use of the network: 200mbit, 25MB/s',
  },
  timeout: {
    type: 'string',
    requiresArg: true,
    coerce: valued('--timeout', parseDuration),
    describe: 'Give up, with the guest on the source, after: 10m, 1h',
  },
  connections: {
    type: 'string',
    requiresArg: true,
    coerce: valued('--connections', (text) => parseCount(text, 16)),
    describe: 'Connections between the two hosts: 1 to 16',
  },
  'no-agent': {
    type: 'boolean',
    describe: 'Do not ask the guest agent: teleport nothing',
  },
  'no-compress': {
    type: 'boolean',
    describe: 'Do not compress what is sent',
  },
  persistent: {
    type: 'boolean',
    describe: 'libvirt: keep the configuration on the destination',
  },
  'undefine-source': {
    type: 'boolean',
    describe: 'libvirt: drop the configuration on the source',
  },
  'dest-name': {
    type: 'string',
    requiresArg: true,
    describe: 'libvirt: name of the domain on the destination',
  },
  xml: {
    type: 'string',
    requiresArg: true,
    complete: 'file',
    describe: 'libvirt: file with the XML for the destination',
  },
  unsafe: {
    type: 'boolean',
    describe: 'libvirt: also when it holds the migration to be unsafe',
  },
} as const satisfies Record<string, VerbOption>;

/** What `teleport` and `preflight` take alike. */
export const migrationOptions = {
  ...anyMigrationOptions,
  'max-downtime': {
    type: 'string',
    requiresArg: true,
    coerce: valued('--max-downtime', parseDuration),
    describe: 'Longest acceptable pause of the guest: 300ms',
  },
  'on-no-converge': {
    choices: noConvergePolicies,
    default: defaultOnNoConverge,
    requiresArg: true,
    describe: 'When it writes faster than the link takes',
  },
  'reconnect-timeout': {
    type: 'string',
    requiresArg: true,
    coerce: valued('--reconnect-timeout', (text) => (text.trim() === '0' ? 0 : parseDuration(text))),
    describe: 'Look for a lost network for so long: 60s by default; 0: give up',
  },
} as const satisfies Record<string, VerbOption>;

/** A coercion that names its option in the error. */
export function valued<T>(option: string, parse: (text: string) => T): (typed: unknown) => T {
  return (typed) => {
    try {
      return parse(String(typed));
    } catch (error) {
      if (error instanceof UnitError) throw new UsageError(`${option}: ${error.message}`);
      throw error;
    }
  };
}
