import { labStatusLines } from '../render/lab.js';
import { defineVerb } from '../verb.js';

export const labStatus = defineVerb({
  command: 'status',
  describe: 'Whether the lab is up, and what runs in it',
  async run(args, context) {
    const status = await (await context.lab()).labStatus();
    if (args.json) context.output.json(status);
    else context.output.result(labStatusLines(status, context.output.stdout.style));
    return 0;
  },
});
