import type { LibvirtVersion } from '../../lab/index.js';
import { defined, withInterrupt } from '../migration.js';
import { valued } from '../options.js';
import { labStatusLines } from '../render/lab.js';
import { parseBandwidth, parseDuration } from '../units.js';
import { UsageError } from '../usageError.js';
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
  qemu: { choices: ['7.2', '10.0', 'mixed'], requiresArg: true, describe: 'Version of QEMU; mixed: 7.2 and 10.0' },
  libvirt: {
    type: 'string',
    coerce: parseLibvirt,
    describe: 'Run libvirt on both hosts; without a version, 9.0; or 11.3, or none',
  },
} as const satisfies VerbOptions;

/** `--libvirt` may stand alone. */
function parseLibvirt(typed: unknown): LibvirtVersion | null {
  if (typed === '') return '9.0';
  if (typed === 'none') return null;
  const versions: readonly LibvirtVersion[] = ['9.0', '11.3'];
  const version = versions.find((each) => each === typed);
  if (version === undefined) throw new UsageError(`--libvirt: one of ${versions.join(', ')}, none; not ${typed}`);
  return version;
}

export const labUp = defineVerb({
  command: 'up',
  describe: 'Raise the lab, or repair what a crash left of it',
  options,
  examples: [['lab up --rtt 40ms --rate 200mbit', 'As far apart as two cities']],
  epilogue: 'What is not given stays as it is; a new lab has 40ms, 200mbit, QEMU 7.2 and no libvirt.',
  async run(args, context) {
    const lab = await context.lab();
    const { output } = context;
    await withInterrupt(context, 'Raising the lab', (signal) =>
      lab.labUp({
        ...defined('rttMs', args.rtt),
        ...defined('rateBps', args.rate),
        ...defined('qemu', args.qemu),
        ...defined('libvirt', args.libvirt),
        signal,
      }),
    );
    const status = await lab.labStatus();
    if (args.json) output.json(status);
    else output.result(labStatusLines(status, lab.labPaths.inventory(), output.stdout));
    return 0;
  },
});
