import { exitCodes } from '../../migrate/report.js';
import { defined, withInterrupt } from '../migration.js';
import { checkLines } from '../render/checks.js';
import { clean, duration } from '../render/format.js';
import { defineVerb } from '../verb.js';

export const hostCheck = defineVerb({
  command: 'check <name>',
  describe: 'Whether a host can be reached and has what migrations need',
  positionals: {
    name: {
      type: 'string',
      demandOption: true,
      complete: 'host',
      describe: 'A host of the inventory, or user@host:port',
    },
  },
  epilogue: 'Exit codes: 0 ready, 1 something required is missing, 4 out of reach',
  async run(args, context) {
    const found = await withInterrupt(context, `Asking ${clean(args.name)}`, async (signal) =>
      (await context.policy()).checkHost(args.name, { ...defined('inventoryPath', args.inventory), signal }),
    );
    const { output } = context;
    const { style } = output.stdout;
    const trip = found.rttMs === null ? '' : `, round trip ${duration(found.rttMs)}`;
    const reach = found.reachable ? `reachable${trip}` : style.red('out of reach');
    if (args.json) output.json(found);
    else output.result([`${style.bold(clean(found.host))}: ${reach}`, ...checkLines(found.checks, output.stdout)]);
    if (!found.reachable) return exitCodes.unreachable;
    return found.checks.every((check) => check.ok || check.severity === 'recommended') ? 0 : exitCodes.failed;
  },
});
