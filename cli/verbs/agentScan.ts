import { defined, withInterrupt } from '../migration.js';
import { fromOption, guestPositional } from '../options.js';
import { scanLines } from '../render/scan.js';
import { defineVerb } from '../verb.js';

export const agentScan = defineVerb({
  command: 'scan <vm>',
  describe: 'Ask the agent of a guest what its page cache holds; moves nothing',
  positionals: { vm: guestPositional },
  options: { from: fromOption },
  async run(args, context) {
    const scan = await withInterrupt(context, 'Asking the agent', async (signal) =>
      (await context.policy()).agentScan(args.vm, {
        ...defined('from', args.from),
        ...defined('inventoryPath', args.inventory),
        signal,
      }),
    );
    const { output } = context;
    if (args.json) output.json(scan);
    else output.result(scanLines(scan, output.stdout));
    return 0;
  },
});
