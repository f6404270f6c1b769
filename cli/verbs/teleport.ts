import { requestFrom, runMigration } from '../migration.js';
import { guestPositional, migrationOptions, progressOption } from '../options.js';
import { defineVerb } from '../verb.js';
import { runPreflight } from './preflight.js';

export const teleport = defineVerb({
  command: 'teleport <vm>',
  describe: 'Move a guest; its page cache comes from the shared disk',
  positionals: { vm: guestPositional },
  options: {
    ...migrationOptions,
    progress: progressOption,
    'dry-run': {
      type: 'boolean',
      describe: 'Only check, as "vmmig preflight" does',
    },
  },
  examples: [
    ['teleport vm1 --to hostB', 'Move vm1 to hostB'],
    ['teleport vm1 --to hostB --bandwidth 200mbit', 'At no more than 200 Mbit/s'],
    ['teleport vm1 --from hostA --to root@192.0.2.7', 'From a third machine'],
  ],
  async run(args, context) {
    if (args.dryRun) return runPreflight('teleport', requestFrom(args), args.json, context);
    const request = requestFrom(args);
    // Times in the report count from the start of the process, which is where performance.now() begins.
    return runMigration(context, args, async (hooks) =>
      (await context.policy()).teleport(request, { ...hooks, startedAtMs: 0 }),
    );
  },
});
