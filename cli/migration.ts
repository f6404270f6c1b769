/** Running a migration from the command line: progress, interruptions, and the report at the end. */
import type { Hooks, MigrateRequest } from '../migrate/index.js';
import type { OnNoConverge } from '../migrate/noConvergence.js';
import { exitCodeOf, type MigrationReport } from '../migrate/report.js';
import { Interrupts, listenForInterrupts } from './interrupts.js';
import { progressRenderer } from './progress/choose.js';
import { LiveRegion } from './progress/liveRegion.js';
import { outcomeLine, type ProgressKind } from './progress/renderer.js';
import { reportLines } from './render/report.js';
import type { VerbArguments, VerbContext } from './verb.js';

/** The options that `teleport` and `preflight` take alike, as yargs gives them. */
interface RequestArguments extends VerbArguments {
  readonly vm: string;
  readonly to: string;
  readonly from: string | undefined;
  readonly bandwidth: number | undefined;
  readonly maxDowntime: number | undefined;
  readonly onNoConverge: OnNoConverge | undefined;
  readonly timeout: number | undefined;
  readonly reconnectTimeout: number | undefined;
  readonly connections: number | undefined;
  readonly noAgent: boolean | undefined;
  readonly noCompress: boolean | undefined;
  readonly persistent: boolean | undefined;
  readonly undefineSource: boolean | undefined;
  readonly destName: string | undefined;
  readonly xml: string | undefined;
  readonly unsafe: boolean | undefined;
}

export function requestFrom(args: RequestArguments): MigrateRequest {
  return {
    vm: args.vm,
    to: args.to,
    ...defined('from', args.from),
    ...defined('inventoryPath', args.inventory),
    ...defined('bandwidthBps', args.bandwidth),
    ...defined('maxDowntimeMs', args.maxDowntime),
    ...defined('onNoConverge', args.onNoConverge),
    ...defined('timeoutMs', args.timeout),
    ...defined('reconnectTimeoutMs', args.reconnectTimeout),
    ...defined('connections', args.connections),
    agent: args.noAgent !== true,
    compress: args.noCompress !== true,
    domain: {
      persistent: args.persistent === true,
      undefineSource: args.undefineSource === true,
      ...defined('destinationName', args.destName),
      ...defined('destinationXml', args.xml),
      unsafe: args.unsafe === true,
    },
  };
}

/** An optional property of an options object, left out where nothing was given. */
export function defined<K extends string, T>(key: K, value: T | undefined): Partial<Record<K, T>> {
  return value === undefined ? {} : ({ [key]: value } as Record<K, T>);
}

/**
 * Runs `move` under Ctrl-C and progress, and reports.
 * @param beginning - what Ctrl-C would interrupt at first
 * @returns the exit code
 */
export async function runMigration(
  context: VerbContext,
  show: { readonly progress: ProgressKind; readonly json: boolean },
  move: (hooks: Hooks) => Promise<MigrationReport>,
  beginning: 'copying' | 'resolving' = 'copying',
): Promise<number> {
  const { output } = context;
  const report = await withProgress(context, show.progress, beginning, move);
  if (show.json) output.json(report);
  else output.result(reportLines(report, output.stdout));
  // On a terminal the report has just said it; in rawjson the last event has.
  const said = (!show.json && output.stdout.isTerminal) || show.progress === 'rawjson';
  const quiet = show.progress === 'none' && report.result === 'moved';
  if (!said && !quiet) output.note(outcomeLine(report, output.stderr.style));
  return exitCodeOf(report);
}

async function withProgress<T>(
  context: VerbContext,
  kind: ProgressKind,
  beginning: 'copying' | 'resolving',
  work: (hooks: Hooks) => Promise<T>,
): Promise<T> {
  using progress = progressRenderer(kind, context.output.stderr);
  const say = (line: string) => progress.note(line);
  const interrupts = new Interrupts({ say, forceExit: (code) => process.exit(code) }, beginning);
  using _listening = listenForInterrupts(interrupts);
  return await work({
    onProgress: (event) => {
      interrupts.observe(event);
      progress.show(event);
    },
    signal: interrupts.signal,
    leave: interrupts.leave,
  });
}

/**
 * For verbs that wait and move nothing: Ctrl-C ends them, and a terminal shows meanwhile what they wait for.
 * @param doing as in `Asking the hosts`
 */
export async function withInterrupt<T>(
  context: VerbContext,
  doing: string,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { stderr } = context.output;
  const waiting = new LiveRegion(stderr);
  if (stderr.animated) waiting.draw([stderr.style.dim(`${doing} ${stderr.style.symbols.ellipsis}`)]);
  const controller = new AbortController();
  const stop = (): void => {
    if (controller.signal.aborted) process.exit(130);
    waiting.clear();
    context.output.note('Interrupted.');
    controller.abort(new DOMException('interrupted by the user', 'AbortError'));
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.on(signal, stop);
  try {
    return await work(controller.signal);
  } finally {
    waiting.clear();
    for (const signal of signals) process.off(signal, stop);
  }
}
