import type { MigrateRequest } from '../../migrate/index.js';
import { exitCodes, type MigrationMode, migrationModes } from '../../migrate/report.js';
import { requestFrom, withInterrupt } from '../migration.js';
import { guestPositional, migrationOptions } from '../options.js';
import { preflightLines } from '../render/preflight.js';
import { defineVerb, type VerbContext } from '../verb.js';

const exitCodeOfResult = { ready: 0, refused: exitCodes.refused, unreachable: exitCodes.unreachable } as const;

export const preflight = defineVerb({
  command: 'preflight <vm>',
  describe: 'Say whether a guest could move, and all reasons why not; changes nothing',
  positionals: { vm: guestPositional },
  options: {
    ...migrationOptions,
    mode: {
      choices: migrationModes,
      default: 'teleport',
      requiresArg: true,
      describe: 'How it would be moved',
    },
  },
  examples: [
    ['preflight vm1 --to hostB', 'Could vm1 move to hostB?'],
    ['preflight vm1 --to hostB --mode switch', 'Could it be switched over at once?'],
  ],
  epilogue: 'Exit codes: 0 ready, 2 usage error, 4 a host was out of reach, 5 refused',
  run: (args, context) => runPreflight(args.mode, requestFrom(args), args.json, context),
});

export async function runPreflight(
  mode: MigrationMode,
  request: MigrateRequest,
  json: boolean,
  context: VerbContext,
): Promise<number> {
  const report = await withInterrupt(context, 'Checking', async (signal) =>
    (await context.policy()).preflight(mode, request, { signal }),
  );
  const { output } = context;
  if (json) output.json(report);
  else output.result(preflightLines(report, output.stdout));
  return exitCodeOfResult[report.result];
}
