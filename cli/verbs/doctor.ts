import { exitCodes } from '../../migrate/report.js';
import { withInterrupt } from '../migration.js';
import { checkLines } from '../render/checks.js';
import { defineVerb } from '../verb.js';

export const doctor = defineVerb({
  command: 'doctor',
  describe: 'What this machine lacks to run migrations, and how to get it',
  epilogue: 'Exit codes: 0 nothing that is required is missing, 1 something is',
  async run(args, context) {
    const report = await withInterrupt(context, 'Checking', async (signal) =>
      (await context.policy()).doctor({ signal }),
    );
    const { output } = context;
    if (args.json) output.json(report);
    else output.result(checkLines(report.checks, output.stdout));
    return report.checks.every((check) => check.ok || check.severity === 'recommended') ? 0 : exitCodes.failed;
  },
});
