import { defineVerb } from '../verb.js';

export const labDown = defineVerb({
  command: 'down',
  describe: 'Take the lab down; leaves no trace',
  async run(args, context) {
    await (await context.lab()).labDown();
    if (args.json) context.output.json({ up: false });
    else context.output.note('The lab is down.');
    return 0;
  },
});
