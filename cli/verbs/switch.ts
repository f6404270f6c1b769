import type { SwitchRequest } from '../../migrate/index.js';
import { defined, requestFrom, runMigration } from '../migration.js';
import { anyMigrationOptions, guestPositional, progressOption, valued } from '../options.js';
import { parseDuration, parseMemory, parseShare, UnitError } from '../units.js';
import { defineVerb, type VerbOption } from '../verb.js';
import { runPreflight } from './preflight.js';

const options = {
  ...anyMigrationOptions,
  after: {
    type: 'string',
    requiresArg: true,
    default: 'now',
    coerce: valued('--after', parseAfter),
    describe: 'When to switch: now, converged, or after a time: 30s',
  },
  prefetch: {
    type: 'string',
    requiresArg: true,
    coerce: valued('--prefetch', parseShare),
    describe: 'Of what the guest has used lately, send so much before the switch: 50%; 0 for nothing',
  },
  'page-store-limit': {
    type: 'string',
    requiresArg: true,
    coerce: valued('--page-store-limit', parseMemory),
    describe: 'Memory on the source for what is not sent yet: 4GiB; half of what is free by default',
  },
  spill: {
    type: 'boolean',
    describe: 'Put what exceeds it into a file on the source',
  },
  'reconnect-timeout': {
    type: 'string',
    requiresArg: true,
    default: '1h',
    coerce: valued('--reconnect-timeout', parseDuration),
    describe: 'After the switch, look for a lost network for so long',
  },
  'max-exposure': {
    type: 'string',
    requiresArg: true,
    coerce: valued('--max-exposure', parseDuration),
    describe: 'Do not switch when pulling the rest would take longer: 60s',
  },
  progress: progressOption,
  'dry-run': {
    type: 'boolean',
    describe: 'Only check, as "vmmig preflight" does',
  },
} as const satisfies Record<string, VerbOption>;

export const switchVerb = defineVerb({
  command: 'switch <vm>',
  describe: 'Move a guest at once; its memory follows while it runs',
  positionals: { vm: guestPositional },
  options,
  epilogue:
    'Until all memory has been pulled the guest needs the source host: if that is lost, so is the guest.\n' +
    "So it is with vmmig's service there, unless the guest's memory is in a shared file.\n" +
    'A network that fails meanwhile only makes the guest wait; "vmmig status" says for what.',
  examples: [
    ['switch vm1 --to hostB', 'vm1 runs on hostB at once'],
    ['switch vm1 --to hostB --after converged', 'when most of its memory is there'],
  ],
  async run(args, context) {
    const request: SwitchRequest = {
      ...requestFrom({ ...args, maxDowntime: undefined, onNoConverge: undefined }),
      after: args.after,
      ...defined('prefetchShare', args.prefetch),
      ...defined('pageStoreLimitBytes', args.pageStoreLimit),
      spill: args.spill === true,
      reconnectTimeoutMs: args.reconnectTimeout,
      ...defined('maxExposureMs', args.maxExposure),
    };
    if (args.dryRun) return runPreflight('switch', request, args.json, context);
    return runMigration(context, args, async (hooks) =>
      (await context.policy()).switchOver(request, { ...hooks, startedAtMs: 0 }),
    );
  },
});

function parseAfter(text: string): SwitchRequest['after'] {
  if (text === 'now' || text === 'converged') return text;
  try {
    return parseDuration(text);
  } catch {
    throw new UnitError(`"${text}" is neither now nor converged nor a time such as 30s`);
  }
}
