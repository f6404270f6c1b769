import { withInterrupt } from '../migration.js';
import { defineVerb } from '../verb.js';

export const labDown = defineVerb({
  command: 'down',
  describe: 'Take the lab down; leaves no trace',
  async run(args, context) {
    const lab = await context.lab();
    await withInterrupt(context, 'Taking the lab down', (signal) => lab.labDown({ signal }));
    if (args.json) context.output.json(await lab.labStatus());
    else context.output.note('The lab is down.');
    return 0;
  },
});
