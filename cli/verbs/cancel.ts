import { exitCodeOf, exitCodes } from '../../migrate/report.js';
import { guestPositional } from '../options.js';
import { outcomeLine } from '../progress/renderer.js';
import { clean } from '../render/format.js';
import { defineVerb } from '../verb.js';

export const cancel = defineVerb({
  command: 'cancel <vm>',
  describe: 'Cancel the migration that this machine is running, and wait for its end',
  positionals: { vm: guestPositional },
  epilogue:
    'Exits as the migration did, and so says where the guest is:\n' +
    '  3 cancelled, on the source    0 too late, it had moved already',
  async run(args, context) {
    const ended = await (await context.policy()).cancelMigration(args.vm);
    const { output } = context;
    if (ended.report === null) {
      if (args.json) output.json(ended);
      else output.result([`${clean(args.vm)}: ${ended.result} (${ended.id})`]);
      return exitCodes[ended.result];
    }
    if (args.json) output.json(ended.report);
    else output.result([outcomeLine(ended.report, output.stdout.style)]);
    if (ended.report.result === 'moved') output.note('Too late to cancel: the guest had been handed over already.');
    return exitCodeOf(ended.report);
  },
});
