import { defined } from '../migration.js';
import { clean } from '../render/format.js';
import { defineVerb } from '../verb.js';

export const hostRemove = defineVerb({
  command: 'remove <name>',
  describe: 'Take a host out of the inventory; the host itself is left alone',
  positionals: {
    name: { type: 'string', demandOption: true, complete: 'host', describe: 'The host, as the inventory names it' },
  },
  async run(args, context) {
    await (await context.policy()).removeHost(args.name, { ...defined('inventoryPath', args.inventory) });
    if (args.json) context.output.json({ name: args.name });
    else context.output.note(`Removed ${clean(args.name)} from the inventory.`);
    return 0;
  },
});
