import { reportLines } from '../render/report.js';
import { defineVerb } from '../verb.js';

export const show = defineVerb({
  command: 'show <migration>',
  describe: 'The report of a migration',
  positionals: {
    migration: {
      type: 'string',
      demandOption: true,
      complete: 'guest',
      describe: 'Its id, or a guest: the latest of that guest',
    },
  },
  epilogue: 'Exits with 0 when there is such a report, whatever became of the migration.',
  async run(args, context) {
    const report = await (await context.policy()).showReport(args.migration);
    const { output } = context;
    if (args.json) output.json(report);
    else output.result(reportLines(report, output.stdout));
    return 0;
  },
});
