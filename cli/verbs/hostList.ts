import { defined } from '../migration.js';
import { clean } from '../render/format.js';
import { table } from '../render/table.js';
import { defineVerb } from '../verb.js';

export const hostList = defineVerb({
  command: 'list',
  describe: 'The hosts of the inventory',
  async run(args, context) {
    const list = await (await context.policy()).listHosts({ ...defined('inventoryPath', args.inventory) });
    const { output } = context;
    if (args.json) output.json(list);
    else if (list.hosts.length === 0) output.note('No hosts yet: "vmmig host add NAME user@host" adds one.');
    else {
      const rows = list.hosts.map((host) => [clean(host.name), clean(host.ssh), host.guests.map(clean).join(', ')]);
      output.result(table([{ title: 'host' }, { title: 'reached as' }, { title: 'guests' }], rows, output.stdout));
    }
    return 0;
  },
});
