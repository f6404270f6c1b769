import { defineVerb } from '../verb.js';

export const streamInspect = defineVerb({
  command: 'inspect <file>',
  describe: 'Summarise a captured QEMU migration stream',
  positionals: {
    file: {
      type: 'string',
      demandOption: true,
      complete: 'file',
      describe: 'What QEMU wrote to "migrate exec:cat > FILE"',
    },
  },
  async run(args, context) {
    const inspected = await (await context.policy()).inspectStream(args.file);
    if (args.json) context.output.json(inspected.summary);
    else context.output.result([inspected.text.trimEnd()]);
    return 0;
  },
});
