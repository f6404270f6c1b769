/**
 * Migration as QMP speaks of it. Members that only some of QEMU 7.2 to 10.0 know are optional: ask `schema()` before
 * sending one. Source: QEMU, qapi/migration.json.
 */

export type MigrationStatus =
  | 'none'
  | 'setup'
  | 'cancelling'
  | 'cancelled'
  | 'active'
  | 'postcopy-active'
  | 'postcopy-paused'
  | 'postcopy-recover-setup'
  | 'postcopy-recover'
  | 'completed'
  | 'failed'
  | 'colo'
  | 'pre-switchover'
  | 'device'
  | 'wait-unplug';

/** Bytes unless named otherwise. */
export interface MigrationStats {
  transferred: number;
  remaining: number;
  total: number;
  /** Pages that were all zero (of one byte, before 8.2). */
  duplicate: number;
  /** Pages. */
  normal: number;
  'normal-bytes': number;
  /** Pages per second, of the last second. */
  'dirty-pages-rate': number;
  /** Throughput in Mbit/s. */
  mbps: number;
  'dirty-sync-count': number;
  'postcopy-requests': number;
  'page-size': number;
  'multifd-bytes': number;
  'pages-per-second': number;
  'precopy-bytes': number;
  'downtime-bytes': number;
  'postcopy-bytes': number;
  'dirty-sync-missed-zero-copy': number;
}

/** Everything is absent while no migration was started. Times are milliseconds. */
export interface MigrationInfo {
  status?: MigrationStatus;
  ram?: MigrationStats;
  vfio?: { transferred: number };
  'xbzrle-cache'?: {
    'cache-size': number;
    bytes: number;
    pages: number;
    'cache-miss': number;
    'cache-miss-rate': number;
    'encoding-rate': number;
    overflow: number;
  };
  'total-time'?: number;
  'expected-downtime'?: number;
  downtime?: number;
  'setup-time'?: number;
  'cpu-throttle-percentage'?: number;
  'error-desc'?: string;
  /** Why this guest cannot be migrated now. */
  'blocked-reasons'?: string[];
  'postcopy-blocktime'?: number;
  'postcopy-vcpu-blocktime'?: number[];
  /** Where an incoming migration listens. */
  'socket-address'?: SocketAddress[];
}

export type SocketAddress =
  | { type: 'inet'; host: string; port: string }
  | { type: 'unix'; path: string }
  | { type: 'vsock'; cid: string; port: string }
  | { type: 'fd'; str: string };

/** Where a migration goes to or comes from, in the form of QEMU 8.2 and newer. */
export interface MigrationChannel {
  'channel-type': 'main' | 'cpr';
  addr:
    | ({ transport: 'socket' } & SocketAddress)
    | { transport: 'exec'; args: string[] }
    | { transport: 'rdma'; host: string; port: string }
    | { transport: 'file'; filename: string; offset: number };
}

/** Exactly one of `uri` and `channels`. `uri`: `unix:PATH`, `tcp:HOST:PORT`, `fd:NAME`, `exec:COMMAND`. */
export interface MigrateArguments {
  uri?: string;
  channels?: MigrationChannel[];
  /** Continue a postcopy migration that was paused by a network failure. */
  resume?: boolean;
}

export interface MigrateIncomingArguments {
  uri?: string;
  channels?: MigrationChannel[];
  /** From 9.1 on: false keeps a destination whose migration failed, so that it can be asked why. */
  'exit-on-error'?: boolean;
}

/** The names QEMU 7.2 to 10.0 know; others may be sent too. */
export type MigrationCapability =
  | 'xbzrle'
  | 'rdma-pin-all'
  | 'auto-converge'
  | 'events'
  | 'postcopy-ram'
  | 'x-colo'
  | 'release-ram'
  | 'return-path'
  | 'pause-before-switchover'
  | 'multifd'
  | 'dirty-bitmaps'
  | 'postcopy-blocktime'
  | 'late-block-activate'
  | 'x-ignore-shared'
  | 'validate-uuid'
  | 'background-snapshot'
  | 'zero-copy-send'
  | 'postcopy-preempt'
  | 'switchover-ack'
  | 'dirty-limit'
  | 'mapped-ram';

export interface MigrationCapabilityStatus {
  capability: MigrationCapability;
  state: boolean;
}

/** Bytes per second for bandwidths, milliseconds for times, percent for CPU throttling. */
export interface MigrationParameters {
  'announce-initial'?: number;
  'announce-max'?: number;
  'announce-rounds'?: number;
  'announce-step'?: number;
  'throttle-trigger-threshold'?: number;
  'cpu-throttle-initial'?: number;
  'cpu-throttle-increment'?: number;
  'cpu-throttle-tailslow'?: boolean;
  'max-cpu-throttle'?: number;
  'tls-creds'?: string;
  'tls-hostname'?: string;
  'tls-authz'?: string;
  /** 0: unlimited. */
  'max-bandwidth'?: number;
  /** From 8.2 on: what to assume for the last pass, instead of what was measured. */
  'avail-switchover-bandwidth'?: number;
  'downtime-limit'?: number;
  /** 0: unlimited. */
  'max-postcopy-bandwidth'?: number;
  'x-checkpoint-delay'?: number;
  'multifd-channels'?: number;
  'multifd-compression'?: 'none' | 'zlib' | 'zstd' | 'qatzip' | 'qpl' | 'uadk';
  'multifd-zlib-level'?: number;
  'multifd-zstd-level'?: number;
  'xbzrle-cache-size'?: number;
  /** Milliseconds, from 8.1 on. */
  'x-vcpu-dirty-limit-period'?: number;
  /** MB/s, from 8.1 on. */
  'vcpu-dirty-limit'?: number;
  /** From 8.2 on. */
  mode?: 'normal' | 'cpr-reboot' | 'cpr-transfer';
  /** From 9.0 on. */
  'zero-page-detection'?: 'none' | 'legacy' | 'multifd';
  /** From 9.1 on. */
  'direct-io'?: boolean;
}
