/** What preflight found: whether the guest could move, every reason why not, and what moving would be like. */
import type { PreflightReport } from '../../migrate/index.js';
import { clean, duration, memory, percent } from './format.js';
import { errorLines, findingLines } from './report.js';
import type { Page } from './style.js';
import { wrap } from './table.js';

export function preflightLines(report: PreflightReport, page: Page): string[] {
  const { style, textWidth } = page;
  const { symbols } = style;
  const route = `${clean(report.vm)} from ${clean(report.from)} to ${clean(report.to)}`;
  const headlines = {
    ready: `${style.green(symbols.done)} ready: ${report.mode} of ${route}`,
    refused: `${style.red(symbols.failed)} refused: ${report.mode} of ${route}`,
    unreachable: `${style.red(symbols.failed)} out of reach: ${report.mode} of ${route}`,
  } as const;
  return [
    ...wrap(style.bold(headlines[report.result]), textWidth),
    // A refusal's error only repeats the findings below.
    ...(report.result === 'refused' && report.findings.length > 0 ? [] : errorLines(report.error, page)),
    ...findingLines(report.findings, page),
    ...estimateLines(report, page),
    ...exposureLines(report, page),
  ];
}

/** What a switch cannot survive is said before it is begun. */
function exposureLines({ mode, result, from, vm }: PreflightReport, { textWidth }: Page): string[] {
  if (mode !== 'switch' || result !== 'ready') return [];
  const needs = `until all of its memory has been pulled ${clean(vm)} needs ${clean(from)}, and is lost with it`;
  const service = `unless its memory is in a shared file, also with vmmig's service there`;
  return wrap(`${needs}; ${service}`, textWidth, 2);
}

function estimateLines({ estimate }: PreflightReport, { textWidth }: Page): string[] {
  if (estimate === null) return [];
  const { memoryBytes, teleportableBytes, pageCacheBytes, rttMs } = estimate;
  const unknown =
    pageCacheBytes === null
      ? 'what is page cache is not known'
      : `some ${memory(pageCacheBytes)} (${percent(pageCacheBytes, memoryBytes)}) is page cache that an agent could have spared`;
  const teleportable =
    teleportableBytes === null
      ? `${unknown}: no agent answered`
      : `${memory(teleportableBytes)} (${percent(teleportableBytes, memoryBytes)}) is page cache that need not be sent`;
  return wrap(`${memory(memoryBytes)} of memory; ${teleportable}; round trip ${duration(rttMs)}`, textWidth, 2);
}
