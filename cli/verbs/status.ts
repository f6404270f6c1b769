import { defined, withInterrupt } from '../migration.js';
import { guestPositional } from '../options.js';
import { statusLines } from '../render/status.js';
import { defineVerb } from '../verb.js';

export const status = defineVerb({
  command: 'status [vm]',
  describe: 'The migrations that go on, whoever began them: what is left, and how the guest fares',
  positionals: { vm: { ...guestPositional, demandOption: false } },
  epilogue: 'Asks the hosts of the inventory, and changes nothing. Exits with 0 also when nothing goes on.',
  async run(args, context) {
    const report = await withInterrupt(context, 'Asking the hosts', async (signal) =>
      (await context.policy()).status({
        ...defined('vm', args.vm),
        ...defined('inventoryPath', args.inventory),
        signal,
      }),
    );
    const { output } = context;
    if (args.json) output.json(report);
    else output.result(statusLines(report, args.vm, Date.now(), output.stdout));
    return 0;
  },
});
