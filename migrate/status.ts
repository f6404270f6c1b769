/** The migrations that are not over, as the hosts and the vmmigs on this machine tell it. Changes nothing. */
import type { FaultStatistics, HostedMigration, TeleportStatus } from '../host-service/protocol.js';
import { loadInventory } from '../hosts/index.js';
import { readJournal } from './journal.js';
import { guestNamed } from './locate.js';
import { type MigrationMode, type PhaseName, phaseNames, type VmLocation } from './report.js';
import { type RunningMigration, runningMigrations } from './running.js';
import { type Part, survey } from './survey.js';
import { pageBytes } from './units.js';

export interface MigrationStatus {
  readonly id: string;
  readonly vm: string;
  readonly mode: MigrationMode;
  readonly from: string | null;
  readonly to: string;
  readonly phase: PhaseName | null;
  /** `unknown` while the guest is handed over, and when only a host that does not answer could say it. */
  readonly vmLocation: VmLocation;
  /** ISO 8601, UTC, as all times here. */
  readonly beganAt: string | null;
  /** The vmmig on this machine that is busy with it. */
  readonly pid: number | null;
  /** What is not on the destination yet; null where no service says it. */
  readonly remaining: {
    /** That only the source has. */
    readonly bytes: number;
    /** That a guest which runs on the destination would have to wait for. */
    readonly missingPages: number;
  } | null;
  readonly faults: FaultStatistics | null;
  readonly link: {
    readonly isConnected: boolean;
    readonly interruptedSince: string | null;
    readonly rttMs: number;
    readonly reconnects: number;
  } | null;
  /** What the source keeps for the destination. */
  readonly store: { readonly memoryBytes: number; readonly spilledBytes: number } | null;
  /** Since when the guest's memory is on two hosts. */
  readonly exposedSince: string | null;
  /** What is not as it should be, in words for the operator. */
  readonly problems: readonly string[];
}

export interface StatusReport {
  readonly schema: 'vmmig.status/1';
  readonly migrations: readonly MigrationStatus[];
  /** Hosts that could not be asked: they may take part in more. */
  readonly silent: readonly { readonly host: string; readonly reason: string }[];
}

export interface StatusRequest {
  /** One guest's migrations alone. */
  readonly vm?: string;
  readonly inventoryPath?: string;
  readonly signal?: AbortSignal;
}

/** @throws VmmigError VMMIG_USAGE_GUEST, InventoryError */
export async function status({ vm, inventoryPath, signal }: StatusRequest): Promise<StatusReport> {
  const inventory = await loadInventory({ path: inventoryPath });
  if (vm !== undefined) guestNamed(inventory, vm);
  const [{ parts, silent }, here] = await Promise.all([survey(inventory, signal), runningMigrations()]);
  const ids = new Set([...parts.map(({ hosted }) => hosted.ledger.migrationId), ...here.map(({ id }) => id)]);
  const migrations = await Promise.all(
    [...ids].sort().map(async (id) => {
      const own = here.find((running) => running.id === id) ?? null;
      const hosted = parts.filter((part) => part.hosted.ledger.migrationId === id);
      if (hosted.length === 0) return await toldHere(own!);
      const told = toldByHosts(hosted, own);
      // Whoever moves it knows which phase it is in; the hosts know how far it has come.
      return own === null || told.mode === 'switch'
        ? told
        : { ...told, phase: (await toldHere(own)).phase ?? told.phase };
    }),
  );
  return {
    schema: 'vmmig.status/1',
    migrations: migrations.filter((migration) => vm === undefined || migration.vm === vm),
    silent,
  };
}

/** As two hosts, or one of them, tell it. */
export function toldByHosts(parts: readonly Part[], own: RunningMigration | null): MigrationStatus {
  const source = parts.find(({ hosted }) => hosted.ledger.role === 'source');
  const destination = parts.find(({ hosted }) => hosted.ledger.role === 'destination');
  const { ledger } = (source ?? destination)!.hosted;
  const from = source?.host.name ?? destination!.hosted.ledger.peer.host;
  const to = destination?.host.name ?? source!.hosted.ledger.peer.host;
  const sending = source?.hosted.source ?? null;
  const receiving = destination?.hosted.destination ?? null;
  const { teleport = null } = source?.hosted ?? {};
  const vmLocation = locationOf(source?.hosted, destination?.hosted);
  const interruptedAtMs = sending?.interruptedAtMs ?? receiving?.interruptedAtMs ?? teleport?.interruptedAtMs ?? null;
  const link = sending ?? receiving ?? linkOf(teleport);
  return {
    id: ledger.migrationId,
    vm: ledger.guest.name,
    mode: ledger.mode,
    from,
    to,
    phase: ledger.mode === 'switch' ? phaseOf(vmLocation, source?.hosted) : teleportPhaseOf(vmLocation, teleport),
    vmLocation,
    beganAt: ledger.beganAt,
    pid: own?.pid ?? null,
    remaining:
      sending === null && receiving === null
        ? null
        : {
            bytes: (sending?.remaining.bytesPages ?? receiving?.missingPages ?? 0) * pageBytes,
            missingPages: receiving?.missingPages ?? sending?.remaining.bytesPages ?? 0,
          },
    faults: receiving?.faults ?? null,
    link: link && {
      isConnected: link.isConnected,
      interruptedSince: timeOf(interruptedAtMs, (sending ?? teleport)?.interruptedAtMs ? source : destination),
      rttMs: Math.round(link.rttMs * 10) / 10,
      reconnects: link.reconnects,
    },
    store: sending && { memoryBytes: sending.storedBytes, spilledBytes: sending.spilledBytes },
    exposedSince: timeOf(receiving?.resumedAtMs ?? null, destination),
    problems: [source, destination].flatMap((part) => (part === undefined ? [] : problemsOf(part, vmLocation))),
  };
}

/** Of the destination's ledger. */
const movedPhases: ReadonlySet<string> = new Set(['pulling', 'lost', 'ended']);

function locationOf(source: HostedMigration | undefined, destination: HostedMigration | undefined): VmLocation {
  if (destination?.isFromBefore) return 'unknown';
  const receiving = destination?.destination ?? destination?.teleport;
  const isMoved = destination !== undefined && movedPhases.has(destination.ledger.phase);
  if (receiving?.commit === 'running' || isMoved) return 'destination';
  if (source === undefined || source.isFromBefore) return 'unknown';
  const sending = source.source ?? source.teleport;
  if (sending?.commit === 'released' || source.ledger.phase === 'pulling') return 'destination';
  return source.decision === 'held' && sending?.commit !== 'resumed' ? 'unknown' : 'source';
}

function phaseOf(vmLocation: VmLocation, source: HostedMigration | undefined): PhaseName {
  if (vmLocation === 'destination') return 'pull';
  if (vmLocation === 'unknown' || source?.source?.ramEnded) return 'switch-over';
  return (source?.source?.counters.pages.seen ?? 0) > 0 ? 'precopy' : 'prepare destination';
}

function linkOf(sending: TeleportStatus | null) {
  if (sending?.rttMs === undefined) return null;
  const { isConnected = true, rttMs, reconnects = 0 } = sending;
  return { isConnected, rttMs, reconnects };
}

function teleportPhaseOf(vmLocation: VmLocation, sending: TeleportStatus | null): PhaseName {
  if (vmLocation === 'destination') return 'release source';
  if (vmLocation === 'unknown' || sending?.commit === 'stopped') return 'verify';
  if (sending?.ramEnded) return 'restore';
  return (sending?.counters?.pages.seen ?? 0) > 0 ? 'precopy' : 'prepare destination';
}

function problemsOf({ host, hosted }: Part, vmLocation: VmLocation): string[] {
  if (hosted.isFromBefore) return [`${host.name} has restarted since: what the guest had there is gone`];
  if ((hosted.source ?? hosted.destination ?? hosted.teleport) !== null) return [];
  const { phase, guest } = hosted.ledger;
  const recover = `run "vmmig recover ${guest.name}"`;
  if (phase === 'lost')
    return [`part of the memory of ${guest.name} is lost: end it on ${host.name} and start it again from its disk`];
  if (hosted.isBusy) return [`vmmig's service on ${host.name} does not answer`];
  const isNeeded = hosted.ledger.mode === 'switch' && hosted.ledger.role === 'source' && !hosted.isReplaceable;
  if (isNeeded && vmLocation === 'destination')
    return [`vmmig's service on ${host.name} has ended, and what the guest still needed from there is gone with it`];
  return [`vmmig's service on ${host.name} has ended: ${recover}`];
}

function timeOf(hostMs: number | null, part: Part | undefined): string | null {
  return hostMs === null || part === undefined ? null : new Date(hostMs - part.clockOffsetMs).toISOString();
}

/** One that the hosts keep no ledger of: it has only begun, or is as good as over. */
async function toldHere({ id, vm, from, to, pid }: RunningMigration): Promise<MigrationStatus> {
  const entries = await readJournal(id);
  const begin = entries.find(({ event }) => event === 'begin');
  const hasCommitted = entries.some(({ event }) => event === 'committed');
  const isCommitting = entries.some(({ event }) => event === 'committing');
  const phase = entries.findLast(({ event, state }) => event === 'phase' && state === 'begin')?.name;
  return {
    id,
    vm,
    mode: begin?.mode === 'switch' ? 'switch' : 'teleport',
    from,
    to,
    phase: phaseNames.find((name) => name === phase) ?? null,
    vmLocation: hasCommitted ? 'destination' : isCommitting ? 'unknown' : 'source',
    beganAt: begin?.at ?? null,
    pid,
    remaining: null,
    faults: null,
    link: null,
    store: null,
    exposedSince: null,
    problems: [],
  };
}
