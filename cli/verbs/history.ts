import { valued } from '../options.js';
import { historyLines } from '../render/history.js';
import { parseCount } from '../units.js';
import { defineVerb, type VerbOptions } from '../verb.js';

const options = {
  limit: {
    type: 'string',
    requiresArg: true,
    coerce: valued('--limit', (text) => parseCount(text, 1_000_000)),
    describe: 'Show so many',
  },
} as const satisfies VerbOptions;

export const history = defineVerb({
  command: 'history',
  describe: 'The migrations that this machine ran, newest first',
  options,
  async run(args, context) {
    const reports = await (await context.policy()).history();
    const newestFirst = [...reports].sort((a, b) => b.startedAt.localeCompare(a.startedAt)).slice(0, args.limit);
    const { output } = context;
    if (args.json) output.json(newestFirst);
    else if (newestFirst.length === 0) output.note('No migrations yet.');
    else output.result(historyLines(newestFirst, output.stdout));
    return 0;
  },
});
