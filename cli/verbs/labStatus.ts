import { labStatusLines } from '../render/lab.js';
import { defineVerb } from '../verb.js';

export const labStatus = defineVerb({
  command: 'status',
  describe: 'Whether the lab is up, and what runs in it',
  epilogue: 'Exit codes: 0 up, 1 down or broken',
  async run(args, context) {
    const lab = await context.lab();
    const status = await lab.labStatus();
    const { output } = context;
    if (args.json) output.json(status);
    else output.result(labStatusLines(status, lab.labPaths.inventory(), output.stdout));
    return status.condition === 'up' ? 0 : 1;
  },
});
