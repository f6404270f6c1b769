/** How long a guest waits for memory that is not there yet. */
import type { FaultStatistics } from '../../migrate/progress.js';
import { count } from './format.js';

/** `41.2 ms`; a wait of a fraction of a millisecond is told as one. */
export function wait(ms: number): string {
  if (ms < 0.095) return '< 0.1 ms';
  return ms < 9.95 ? `${ms.toFixed(1)} ms` : ms < 10_000 ? `${Math.round(ms)} ms` : `${Math.round(ms / 1000)} s`;
}

/** `p50 41 ms, p90 44 ms, p99 80 ms, longest 120 ms`. */
export function waits({
  p50Ms,
  p90Ms,
  p99Ms,
  maxMs,
}: Omit<FaultStatistics, 'answers' | 'perSecond' | 'waiting'>): string {
  return `p50 ${wait(p50Ms)}, p90 ${wait(p90Ms)}, p99 ${wait(p99Ms)}, longest ${wait(maxMs)}`;
}

/** Where the pages came from that were waited for, each with its waits. */
export function answerRows(faults: FaultStatistics): [string, string][] {
  const from = { zero: 'zero', local: 'here', remote: 'source' } as const;
  return (['zero', 'local', 'remote'] as const)
    .filter((answer) => faults.answers[answer].count > 0)
    .map((answer) => [from[answer], `${count(faults.answers[answer].count)}: ${waits(faults.answers[answer])}`]);
}
