/** Lets the two relays meet. Changes nothing on either host that does not end with its service. */
import { randomBytes } from 'node:crypto';
import { call, type Switching, type Tunnel } from '../host-service/protocol.js';
import { linkAddress } from '../hosts/index.js';
import { addressOf, addressOnDestination } from './locate.js';
import type { Intent, Prepared } from './prepared.js';
import type { MigrateRequest } from './requests.js';
import type { Side } from './sides.js';

/**
 * Logging in takes that long where a round trip takes 20 ms or so. To find out what a guest uses slows down an emulated one,
 * and its agent, by some 0.3 s: on a faster network the guest waits for less.
 */
const worthWatchingMs = 120;
/** Compared with 1, 4 and 8: docs/benchmarks.md. */
const defaultConnections = 2;

export interface SwitchSettings {
  readonly after: number | 'converged' | 'now';
  readonly prefetchShare?: number;
  readonly pageStoreLimitBytes?: number;
  readonly spill: boolean;
  readonly reconnectTimeoutMs: number;
  readonly maxExposureMs?: number;
}

/** As far as the relays are concerned. */
export interface RelayedMigration {
  readonly id: string;
  readonly intent: Intent;
  readonly request: MigrateRequest;
  /** So long the relays look for each other while the guest is the source's; 0: not at all. */
  readonly reconnectTimeoutMs: number;
  readonly switching: SwitchSettings | null;
  /** So long the source's relay does not let QEMU's stream in for an agent that has not answered yet. */
  readonly agentPatienceMs: number;
}

/** The source's relay listens for QEMU, whose stream waits until the relays have met. */
export interface RelaysMeeting {
  readonly listening: Promise<unknown>;
  readonly connected: Promise<void>;
  /** The way to the destination's libvirt; null where the guest is none of its. */
  readonly tunnel: Promise<Tunnel | null>;
}

export function connectRelays(
  { source, destination, plan, domain }: Pick<Prepared, 'source' | 'destination' | 'plan' | 'domain'>,
  migration: RelayedMigration,
  signal: AbortSignal,
): RelaysMeeting {
  const { id: migrationId, request, intent, reconnectTimeoutMs, agentPatienceMs } = migration;
  const key = randomBytes(32).toString('base64');
  const listening = call(
    source.rpc,
    'source.listen',
    {
      migrationId,
      key,
      runDir: source.host.runDir,
      guest: addressOf(intent.guest),
      peer: peerOf(destination),
      connections: request.connections ?? defaultConnections,
      bandwidthBps: tightest(request, source, destination),
      compress: request.compress ?? true,
      reconnectTimeoutMs,
      diskIndexes: [...plan.restorableIndexes],
      switching: switchingOf(migration, source),
      watchesUse: Math.max(source.loginMs, destination.loginMs) >= worthWatchingMs,
      agentPatienceMs,
    },
    { signal },
  );
  const listenThere = async () => {
    const { runDir, linkPorts } = destination.host;
    const ports: [number, number] | null = linkPorts === undefined ? null : [linkPorts.first, linkPorts.last];
    const party = { guest: addressOnDestination(intent.guest, request), peer: peerOf(source) };
    const domainUser = domain?.user ?? null;
    const own = { reconnectTimeoutMs, switching: switchingOf(migration, destination), domainUser };
    const listen = { migrationId, runDir, key, ports, ...party, ...own };
    const { port, tunnel, bootId } = await call(destination.rpc, 'destination.listen', listen, { signal });
    const host = await linkAddress(destination.host);
    return {
      relay: { host, port, peerBootId: bootId },
      tunnel: tunnel === null ? null : { host, ...tunnel },
    };
  };
  const there = listenThere();
  const meet = async () => {
    const { relay } = await there;
    await listening;
    await call(source.rpc, 'source.connect', relay, { signal });
  };
  const connected = meet();
  const tunnel = there.then((listens) => listens.tunnel);
  for (const promise of [listening, connected, tunnel]) promise.catch(() => {});
  return { listening, connected, tunnel };
}

function peerOf({ host }: Side): { host: string; runDir: string } {
  return { host: host.name, runDir: host.runDir };
}

function switchingOf({ switching }: RelayedMigration, { host }: Side): Switching | null {
  if (switching === null) return null;
  return {
    pageStoreLimitBytes: switching.pageStoreLimitBytes ?? null,
    spillDir: switching.spill ? host.stateDir : null,
    reconnectTimeoutMs: switching.reconnectTimeoutMs,
    awaitsPermission: switching.maxExposureMs !== undefined,
    holdsBack: switching.after !== 'now' || (switching.prefetchShare ?? 0) > 0,
    prefetchShare: switching.prefetchShare ?? 1,
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
