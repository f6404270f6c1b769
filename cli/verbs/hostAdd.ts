import { defined } from '../migration.js';
import { clean } from '../render/format.js';
import { defineVerb } from '../verb.js';

export const hostAdd = defineVerb({
  command: 'add <name> [ssh]',
  describe: 'Put a host into the inventory',
  positionals: {
    name: { type: 'string', demandOption: true, describe: 'What to call it' },
    ssh: { type: 'string', describe: 'user@host:port, or a name of ~/.ssh/config; else its own name' },
  },
  examples: [['host add hostB root@192.0.2.7', 'Add hostB, reached as root at 192.0.2.7']],
  async run(args, context) {
    const host = { name: args.name, ssh: args.ssh ?? args.name };
    await (await context.policy()).addHost(host, { ...defined('inventoryPath', args.inventory) });
    if (args.json) context.output.json(host);
    else
      context.output.note(
        `Added ${clean(host.name)}. "vmmig host check ${clean(host.name)}" says whether it is ready.`,
      );
    return 0;
  },
});
