/**
 * `vmmig recover`: finds the migrations of a guest that nobody watches any more, and brings each to its end. What it knows
 * of them is what the hosts have noted, so it needs nothing of the command that is gone; of a teleport, of which the
 * hosts note nothing, it needs that command's journal.
 */
import { type Inventory, type InventoryHost, loadInventory, resolveHost } from '../hosts/index.js';
import { VmmigError } from './errors.js';
import { history, readReport } from './history.js';
import { Journal, readJournal } from './journal.js';
import { type Guest, guestNamed } from './locate.js';
import type { Sides } from './prepared.js';
import { Recorder } from './recorder.js';
import { recoverSwitch } from './recoverSwitch.js';
import { recoverTeleport } from './recoverTeleport.js';
import type { Recovery, Unfinished } from './recovery.js';
import type { MigrationReport } from './report.js';
import type { Hooks } from './requests.js';
import { claim } from './running.js';
import type { Side } from './sides.js';
import { journalIds } from './stateDirectory.js';
import { type Part, survey } from './survey.js';

export interface RecoverRequest {
  readonly vm: string;
  readonly inventoryPath?: string;
}

/**
 * Resolves with the report of the guest's latest migration, brought to its end as far as that can be done.
 * @throws VmmigError VMMIG_USAGE_NOTHING_TO_RECOVER, VMMIG_USAGE_GUEST, VMMIG_ALREADY_MIGRATING, VMMIG_HOST_SILENT
 */
export async function recover({ vm, inventoryPath }: RecoverRequest, hooks: Hooks = {}): Promise<MigrationReport> {
  const inventory = await loadInventory({ path: inventoryPath });
  const guest = guestNamed(inventory, vm);
  const { parts, silent } = await survey(inventory);
  const found = fromLedgers(inventory, vm, parts);
  if (found.length === 0) found.push(...(await fromJournals(inventory, vm)));
  let report: MigrationReport | null = null;
  for (const unfinished of found) report = await recoverOne(unfinished, inventory, guest, hooks);
  if (report !== null) return report;
  if (silent.length > 0)
    throw new VmmigError(
      'VMMIG_HOST_SILENT',
      `no unfinished migration of ${vm} was found, but not all hosts could be asked: ` +
        silent.map(({ host, reason }) => `${host} (${reason})`).join(', '),
      { retryable: true },
    );
  throw new VmmigError('VMMIG_USAGE_NOTHING_TO_RECOVER', `there is no unfinished migration of ${vm}`);
}

async function recoverOne(
  unfinished: Unfinished,
  inventory: Inventory,
  guest: Guest,
  hooks: Hooks,
): Promise<MigrationReport> {
  const { id, vm, mode, from, to } = unfinished;
  const start = { id, vm, mode, from: from.name, to: to.name };
  await using _claim = await claim(start);
  await using journal = await Journal.open(id);
  await journal.write('recovered', start);
  const before = await readReport(id);
  const complete = (report: MigrationReport) => completed(report, before, unfinished.beganAt);
  const startedAtMs = hooks.startedAtMs ?? performance.now();
  const recorder = new Recorder(start, journal, hooks.onProgress ?? (() => {}), startedAtMs, complete);
  const { leave } = hooks;
  const sides: Sides = { source: null, destination: null };
  const recovery: Recovery = { unfinished, inventory, guest, sides, recorder, journal, before, leave };
  let report: MigrationReport | null = null;
  try {
    report = mode === 'switch' ? await recoverSwitch(recovery) : await recoverTeleport(recovery);
    return report;
  } finally {
    // One of the services that were started may have taken the place of one that the guest needs.
    const isOver = report !== null && report.result !== 'interrupted';
    const end = (side: Side | null) => (isOver ? side?.[Symbol.asyncDispose]() : side?.leave());
    await Promise.all([end(sides.source), end(sides.destination)]);
  }
}

/** Of a switch both hosts keep a ledger until it is over; the oldest first. */
function fromLedgers(inventory: Inventory, vm: string, parts: readonly Part[]): Unfinished[] {
  const own = parts.filter(({ hosted }) => hosted.ledger.guest.name === vm);
  const ids = [...new Set(own.map(({ hosted }) => hosted.ledger.migrationId))].sort();
  return ids.map((id) => {
    const ofIt = own.filter(({ hosted }) => hosted.ledger.migrationId === id);
    const source = ofIt.find(({ hosted }) => hosted.ledger.role === 'source');
    const destination = ofIt.find(({ hosted }) => hosted.ledger.role === 'destination');
    const { ledger } = (source ?? destination)!.hosted;
    return {
      id,
      vm,
      mode: ledger.mode,
      from: source?.host ?? peerOf(inventory, destination!),
      to: destination?.host ?? peerOf(inventory, source!),
      beganAt: ledger.beganAt,
      parts: ofIt,
      journal: [],
    };
  });
}

function peerOf(inventory: Inventory, { hosted }: Part): InventoryHost {
  const { host, runDir } = hosted.ledger.peer;
  return { ...resolveHost(inventory, host), runDir };
}

/** The latest one that a command on this machine began, got to the commit point, and did not see the end of. */
async function fromJournals(inventory: Inventory, vm: string): Promise<Unfinished[]> {
  const reported = new Map((await history()).map((report) => [report.id, report]));
  for (const id of (await journalIds()).sort().reverse()) {
    const journal = await readJournal(id);
    const begin = journal.find(({ event }) => event === 'begin');
    if (begin?.vm !== vm || typeof begin.from !== 'string' || typeof begin.to !== 'string') continue;
    const report = reported.get(id) ?? null;
    const mayGoOn = report === null || report.result === 'unknown' || report.result === 'interrupted';
    const isOver = !mayGoOn || report?.error?.code === 'VMMIG_GUEST_ENDED';
    const hasAsked = journal.some(({ event }) => event === 'committing');
    if (isOver || !hasAsked) return [];
    return [
      {
        id,
        vm,
        mode: begin.mode === 'switch' ? 'switch' : 'teleport',
        from: resolveHost(inventory, report?.from ?? begin.from),
        to: resolveHost(inventory, begin.to),
        beganAt: begin.at,
        parts: [],
        journal,
      },
    ];
  }
  return [];
}

/** The report of the whole migration: what the first command told of it, and how it ended. */
function completed(ending: MigrationReport, before: MigrationReport | null, beganAt: string): MigrationReport {
  const recoveredAt = new Date().toISOString();
  const startedAt = before?.startedAt ?? beganAt;
  const totalMs = Math.max(0, Date.parse(recoveredAt) - Date.parse(startedAt));
  const isMoved = ending.result === 'moved';
  const switchoverMs = before?.switchoverMs ?? ending.switchoverMs;
  const ended = {
    result: ending.result,
    vmLocation: ending.vmLocation,
    error: ending.error,
    startedAt,
    totalMs,
    releasedMs: isMoved ? totalMs : 0,
    exposureMs: isMoved && ending.mode === 'switch' && switchoverMs > 0 ? totalMs - switchoverMs : null,
    verified: ending.verified ?? before?.verified ?? null,
    faults: ending.faults ?? before?.faults ?? null,
    recoveredAt,
  };
  if (before === null) return { ...ending, ...ended };
  const offsetMs = totalMs - ending.totalMs;
  const phases = [...before.phases, ...ending.phases.map((phase) => ({ ...phase, startMs: phase.startMs + offsetMs }))];
  return { ...before, ...ended, phases };
}
