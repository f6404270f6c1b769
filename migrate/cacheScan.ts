/** Asks the guest's agent for its page cache on behalf of a migration, which goes on without it. */
import { call, type ScanSummary } from '../host-service/protocol.js';
import { toVmmigError } from './errors.js';
import type { Prepared } from './prepared.js';
import type { Recorder } from './recorder.js';
import type { Side } from './sides.js';

/** What is in the guest's page cache before it moves; null without an agent. */
export async function firstScan(
  { source, agent }: Pick<Prepared, 'source' | 'agent'>,
  recorder: Recorder,
  signal: AbortSignal,
): Promise<ScanSummary | null> {
  if (!agent?.found) return null;
  return await recorder.during(
    'scan',
    () => scanCache(source, recorder, 'full', signal),
    (scan) =>
      scan === null
        ? 'no answer'
        : `${scan.pages.toLocaleString('en')} cached pages in ${scan.runs.toLocaleString('en')} runs`,
  );
}

/** An agent that fails costs the elision of what it would have named, not the migration: null then. */
export async function scanCache(
  source: Side,
  recorder: Recorder,
  mode: 'full' | 'changes',
  signal: AbortSignal,
): Promise<ScanSummary | null> {
  let scan: ScanSummary;
  try {
    scan = await call(source.rpc, 'source.scan', { mode }, { signal });
  } catch (thrown) {
    const { code, message } = toVmmigError(thrown);
    if (!code.startsWith('VMMIG_AGENT_')) throw thrown;
    recorder.notice('warn', code, `the guest's agent failed, so its page cache is sent: ${message}`);
    return null;
  }
  const { agent } = recorder.facts;
  recorder.facts = {
    ...recorder.facts,
    agent: {
      via: scan.via,
      scanMs: Math.round((agent?.scanMs ?? 0) + scan.scanMs),
      pages: scan.pages,
      scans: (agent?.scans ?? 0) + 1,
      skipped: scan.skipped,
    },
  };
  return scan;
}
