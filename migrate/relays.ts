/** Lets the two relays meet. Changes nothing on either host that does not end with its service. */
import { randomBytes } from 'node:crypto';
import { call, type Switching } from '../host-service/protocol.js';
import { linkAddress } from '../hosts/index.js';
import { addressOf } from './locate.js';
import type { Intent, Prepared } from './prepare.js';
import type { MigrateRequest } from './requests.js';
import type { Side } from './sides.js';

/** See docs/benchmarks.md for what one, two and four make of a link. */
const defaultConnections = 2;

export interface SwitchSettings {
  readonly pageStoreLimitBytes?: number;
  readonly spill: boolean;
  readonly reconnectTimeoutMs: number;
}

/** As far as the relays are concerned. */
export interface RelayedMigration {
  readonly id: string;
  readonly intent: Intent;
  readonly request: MigrateRequest;
  readonly switching: SwitchSettings | null;
}

export async function connectRelays(
  { source, destination, plan }: Pick<Prepared, 'source' | 'destination' | 'plan'>,
  migration: RelayedMigration,
  signal: AbortSignal,
): Promise<void> {
  const { id: migrationId, request } = migration;
  const { runDir, linkPorts } = destination.host;
  const key = randomBytes(32).toString('base64');
  const ports: [number, number] | null = linkPorts === undefined ? null : [linkPorts.first, linkPorts.last];
  const { port } = await call(
    destination.rpc,
    'destination.listen',
    { migrationId, runDir, key, ports, switching: switchingOf(migration, destination, source) },
    { signal },
  );
  await call(
    source.rpc,
    'source.connect',
    {
      migrationId,
      key,
      port,
      host: await linkAddress(destination.host),
      runDir: source.host.runDir,
      connections: request.connections ?? defaultConnections,
      bandwidthBps: tightest(request, source, destination),
      compress: request.compress ?? true,
      diskIndexes: [...plan.restorableIndexes],
      switching: switchingOf(migration, source, destination),
    },
    { signal },
  );
}

function switchingOf({ intent, switching }: RelayedMigration, { host }: Side, { host: peer }: Side): Switching | null {
  if (switching === null) return null;
  return {
    guest: addressOf(intent.guest),
    peer: { host: peer.name, runDir: peer.runDir },
    pageStoreLimitBytes: switching.pageStoreLimitBytes ?? null,
    spillDir: switching.spill ? host.stateDir : null,
    reconnectTimeoutMs: switching.reconnectTimeoutMs,
  };
}

/** The tightest of what the command, the source and the destination allow. */
function tightest(request: MigrateRequest, source: Side, destination: Side): number | null {
  const limits = [
    request.bandwidthBps,
    source.host.bandwidthBitsPerSecond,
    destination.host.bandwidthBitsPerSecond,
  ].filter((limit) => limit !== undefined);
  return limits.length === 0 ? null : Math.min(...limits);
}
