import { candidates, completeFiles } from '../completion/candidates.js';
import { defined } from '../migration.js';
import { defineVerb, type VerbTable } from '../verb.js';

/** What the completion scripts call: `vmmig __complete -- WORD…`. */
export const complete = (table: () => VerbTable) =>
  defineVerb({
    command: '__complete',
    describe: false,
    async run(args, context) {
      const found = await candidates(args.rest, table(), async (inventoryPath) =>
        (await context.policy()).inventoryNames({ ...defined('inventoryPath', inventoryPath) }),
      );
      const lines =
        found === completeFiles ? [found] : found.map((candidate) => `${candidate.value}\t${candidate.description}`);
      context.output.result(lines);
      return 0;
    },
  });
