/** Everything a migration would look at before it changes anything, and nothing more. */
import { call } from '../host-service/protocol.js';
import { proveDisks } from './diskProof.js';
import { toVmmigError } from './errors.js';
import { findingOf } from './locate.js';
import { check, checkGuest, maySwitch, prepare, understand } from './prepare.js';
import type { Prepared, Sides } from './prepared.js';
import { exitCodeOf, exitCodes, type Finding, type MigrationMode } from './report.js';
import type { Hooks, MigrateRequest, PreflightReport } from './requests.js';
import { pageBytes } from './units.js';

/** Resolves also when a host cannot be reached. @throws VmmigError VMMIG_USAGE_…, InventoryError; what no host explains */
export async function preflight(
  mode: MigrationMode,
  request: MigrateRequest,
  { signal }: Hooks = {},
): Promise<PreflightReport> {
  const intent = await understand(request);
  const sides: Sides = { source: null, destination: null };
  const start = {
    schema: 'vmmig.preflight/1',
    vm: request.vm,
    from: request.from ?? intent.guest.host,
    to: intent.to.name,
    mode,
  } as const;
  let inspected: Pick<Prepared, 'inspection' | 'agent'> | null = null;
  try {
    const prepared = await prepare(intent, request, sides, signal, (found) => {
      inspected = found;
    });
    const [checked, proofs] = await Promise.all([check(prepared, request, mode, signal), proveDisks(prepared, signal)]);
    const findings: Finding[] = [...checked, ...proofs.findings];
    const { source, destination, agent, plan } = prepared;
    const scan = agent?.found === true ? await call(source.rpc, 'source.scan', { mode: 'full' }, { signal }) : null;
    return {
      ...start,
      from: source.host.name,
      result: findings.some(({ severity }) => severity === 'refuse') ? 'refused' : 'ready',
      error: null,
      findings,
      estimate: {
        memoryBytes: plan.memoryBytes,
        teleportableBytes: scan === null ? null : scan.pages * pageBytes,
        pageCacheBytes: agent?.found === false ? agent.pageCacheBytes : null,
        rttMs: Math.round((await destination.clock).rttMs * 10) / 10,
      },
    };
  } catch (thrown) {
    signal?.throwIfAborted();
    const finding = findingOf(thrown);
    if (finding !== null) return { ...start, result: 'refused', error: null, findings: [finding], estimate: null };
    const { code, message, retryable } = toVmmigError(thrown);
    const error = { code, message, phase: 'preflight', retryable } as const;
    if (exitCodeOf({ result: 'failed', error }) !== exitCodes.unreachable) throw thrown;
    // What is known of the source need not wait for the destination.
    const findings = inspected === null ? [] : checkGuest(inspected, maySwitch(request, mode));
    return { ...start, result: 'unreachable', error, findings, estimate: null };
  } finally {
    await Promise.all([sides.source?.[Symbol.asyncDispose](), sides.destination?.[Symbol.asyncDispose]()]);
  }
}
