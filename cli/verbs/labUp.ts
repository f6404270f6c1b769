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
  qemu: { choices: ['7.2', '10.0'], requiresArg: true, describe: 'Version of QEMU' },
} as const satisfies VerbOptions;

export const labUp = defineVerb({
  command: 'up',
  describe: 'Raise the lab, or repair what a crash left of it',
  options,
  examples: [['lab up --rtt 40ms --rate 200mbit', 'As far apart as two cities']],
  epilogue: 'What is not given stays as it is; a new lab has 40ms, 200mbit and QEMU 7.2.',
  async run(args, context) {
    const lab = await context.lab();
    const { output } = context;
    await withInterrupt(context, 'Raising the lab', (signal) =>
      lab.labUp({
        ...defined('rttMs', args.rtt),
        ...defined('rateBps', args.rate),
        ...defined('qemu', args.qemu),
        signal,
      }),
    );
    const status = await lab.labStatus();
    if (args.json) output.json(status);
    else output.result(labStatusLines(status, lab.labPaths.inventory(), output.stdout));
    return 0;
  },
});
