/** One run of the command line: parse, do, and give the exit code. */
import { explainError } from '../migrate/errorCodes.js';
import { exitCodes } from '../migrate/report.js';
import { errorCodeOf, exitCodeOfError } from './exitCode.js';
import { Output, type OutputStream } from './output.js';
import { parse } from './parse.js';
import { type Lab, loadLab, loadPolicy, type Policy } from './policy.js';
import { clean } from './render/format.js';
import { wrap } from './render/table.js';
import { UsageError } from './usageError.js';
import { verbTable } from './verbs/index.js';
import { version } from './version.js';

export interface CommandLineEnvironment {
  readonly env: NodeJS.ProcessEnv;
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly loadPolicy?: () => Promise<Policy>;
  readonly loadLab?: () => Promise<Lab>;
}

/** @returns the exit code; never rejects */
export async function run(argv: readonly string[], environment: CommandLineEnvironment): Promise<number> {
  const { env } = environment;
  // Known before parsing, because what parsing complains about is painted too.
  const noColor = argv.slice(0, argv.includes('--') ? argv.indexOf('--') : argv.length).includes('--no-color');
  const output = new Output(environment, env, noColor);
  try {
    const parsed = await parse(argv, verbTable, { version: version(), width: output.stdout.textWidth });
    if (parsed.kind === 'text') {
      output.result([parsed.text]);
      return 0;
    }
    return await parsed.verb.run(parsed.args, {
      output,
      env,
      policy: environment.loadPolicy ?? loadPolicy,
      lab: environment.loadLab ?? loadLab,
    });
  } catch (error) {
    complain(error, output, env);
    return exitCodeOfError(error);
  }
}

function complain(thrown: unknown, output: Output, env: NodeJS.ProcessEnv): void {
  const { style, textWidth } = output.stderr;
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  const code = errorCodeOf(error);
  const [first = '', ...more] = error.message.split('\n').map(clean);
  output.note(`${style.red('vmmig:')} ${code === null ? '' : `${style.bold(code)}: `}${first}`, ...more);
  if (error instanceof UsageError) {
    if (error.hint !== null) output.note(error.hint);
    return;
  }
  const help = code === null ? null : explainError(code);
  if (help !== null && exitCodeOfError(error) !== exitCodes.usage) output.note(...wrap(help.nextStep, textWidth));
  if ((code === null || code === 'VMMIG_INTERNAL' || env.VMMIG_DEBUG) && error.stack)
    output.note(style.dim(error.stack));
}
