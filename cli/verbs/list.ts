import { defined, withInterrupt } from '../migration.js';
import { guestLines } from '../render/guests.js';
import { defineVerb } from '../verb.js';

export const list = defineVerb({
  command: 'list',
  describe: 'The guests of the inventory: where they are and whether they could move',
  async run(args, context) {
    const found = await withInterrupt(context, 'Asking the hosts', async (signal) =>
      (await context.policy()).listGuests({ ...defined('inventoryPath', args.inventory), signal }),
    );
    const { output } = context;
    if (args.json) output.json(found);
    else output.result(guestLines(found.guests, output.stdout));
    return 0;
  },
});
