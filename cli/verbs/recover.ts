import { defined, runMigration } from '../migration.js';
import { guestPositional, progressOption } from '../options.js';
import { defineVerb } from '../verb.js';

export const recover = defineVerb({
  command: 'recover <vm>',
  describe: 'Find out where a guest is whose migration nobody watches any more, and bring it to its end',
  positionals: { vm: guestPositional },
  options: { progress: progressOption },
  epilogue:
    'Can be run again at any time, from any machine that reaches both hosts. A migration that has not come to its\n' +
    'commit point is given up. Exits as a migration does, and so says where the guest is:\n' +
    '  0 on the destination    1 on the source    6 on the destination, and still needs the source    7 not known',
  examples: [['recover vm1', 'After vmmig ended with exit code 6 or 7, or was killed']],
  run: (args, context) =>
    runMigration(
      context,
      args,
      async (hooks) =>
        (await context.policy()).recover({ vm: args.vm, ...defined('inventoryPath', args.inventory) }, hooks),
      'resolving',
    ),
});
