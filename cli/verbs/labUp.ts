import { defined, withInterrupt } from '../migration.js';
import { valued } from '../options.js';
import { labStatusLines } from '../render/lab.js';
import { parseBandwidth, parseDuration } from '../units.js';
import { defineVerb, type VerbOptions } from '../verb.js';

const options = {
  rtt: {
    type: 'string',
    requiresArg: true,
    coerce: valued('--rtt', parseDuration),
    describe: 'Round trip between the hosts: 40ms',
  },
  rate: {
    type: 'string',
    requiresArg: true,
    coerce: valued('--rate', parseBandwidth),
    describe: 'Rate of the link between them: 200mbit',
  },
  qemu: { type: 'string', requiresArg: true, describe: 'Version of QEMU: 7.2 (the default) or 10.0' },
} as const satisfies VerbOptions;

export const labUp = defineVerb({
  command: 'up',
  describe: 'Raise the lab, or repair what a crash left of it',
  options,
  examples: [['lab up --rtt 40ms --rate 200mbit', 'As far apart as two cities']],
  async run(args, context) {
    const lab = await context.lab();
    const status = await withInterrupt(context, (signal) =>
      lab.labUp({
        ...defined('rttMs', args.rtt),
        ...defined('rateBps', args.rate),
        ...defined('qemu', args.qemu),
        signal,
        onStep: (step: string) => context.output.note(step),
      }),
    );
    const { output } = context;
    if (args.json) output.json(status);
    else output.result(labStatusLines(status, output.stdout.style));
    return 0;
  },
});
