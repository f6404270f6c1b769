/**
 * The commands vmmig uses: their arguments and what they return, as far as vmmig reads it. Replies are typed, not
 * validated: check what a decision hangs on. Source: QEMU's qapi/ (7.2 to 10.0).
 */
import type { BlockDeviceInfo, BlockInfo, BlockStats, JobInfo } from './block.js';
import type {
  ChardevInfo,
  CommandLineOptionInfo,
  CpuInfoFast,
  IoThreadInfo,
  MachineInfo,
  MemoryBackendInfo,
  ObjectPropertyInfo,
  PciInfo,
  StatusInfo,
  VersionInfo,
} from './machine.js';
import type {
  MigrateArguments,
  MigrateIncomingArguments,
  MigrationCapabilityStatus,
  MigrationInfo,
  MigrationParameters,
  MigrationStatus,
} from './migration.js';
import type { SchemaInfo } from './schema.js';

type Nothing = Record<string, never>;

interface Command<Arguments, Returns> {
  arguments: Arguments;
  returns: Returns;
}

export interface QmpCommands {
  'query-version': Command<Nothing, VersionInfo>;
  'query-qmp-schema': Command<Nothing, SchemaInfo[]>;
  'query-command-line-options': Command<{ option?: string }, CommandLineOptionInfo[]>;

  'query-status': Command<Nothing, StatusInfo>;
  'query-name': Command<Nothing, { name?: string }>;
  'query-uuid': Command<Nothing, { UUID: string }>;
  'query-kvm': Command<Nothing, { enabled: boolean; present: boolean }>;
  cont: Command<Nothing, Nothing>;
  stop: Command<Nothing, Nothing>;
  /** Ends the QEMU process. The connection ends with it, mostly after the reply. */
  quit: Command<Nothing, Nothing>;
  /** Presses the guest's power button. */
  system_powerdown: Command<Nothing, Nothing>;

  migrate: Command<MigrateArguments, Nothing>;
  'migrate-incoming': Command<MigrateIncomingArguments, Nothing>;
  migrate_cancel: Command<Nothing, Nothing>;
  /** `state` is the one to leave: `pre-switchover`. */
  'migrate-continue': Command<{ state: MigrationStatus }, Nothing>;
  'migrate-start-postcopy': Command<Nothing, Nothing>;
  /** Interrupts a postcopy migration's connection. Allows out of band. */
  'migrate-pause': Command<Nothing, Nothing>;
  /** Where a paused postcopy destination listens next. Allows out of band. */
  'migrate-recover': Command<{ uri: string }, Nothing>;
  'query-migrate': Command<Nothing, MigrationInfo>;
  'migrate-set-capabilities': Command<{ capabilities: MigrationCapabilityStatus[] }, Nothing>;
  'query-migrate-capabilities': Command<Nothing, MigrationCapabilityStatus[]>;
  'migrate-set-parameters': Command<MigrationParameters, Nothing>;
  'query-migrate-parameters': Command<Nothing, MigrationParameters>;
  /** Makes the guest's network addresses known at its new place. Times in milliseconds. */
  'announce-self': Command<
    { initial: number; max: number; rounds: number; step: number; interfaces?: string[]; id?: string },
    Nothing
  >;

  'query-block': Command<Nothing, BlockInfo[]>;
  'query-named-block-nodes': Command<{ flat?: boolean }, BlockDeviceInfo[]>;
  'query-blockstats': Command<{ 'query-nodes'?: boolean }, BlockStats[]>;
  'query-jobs': Command<Nothing, JobInfo[]>;

  'query-machines': Command<Nothing, MachineInfo[]>;
  'query-current-machine': Command<Nothing, { 'wakeup-suspend-support': boolean }>;
  'query-cpus-fast': Command<Nothing, CpuInfoFast[]>;
  'query-pci': Command<Nothing, PciInfo[]>;
  'query-memdev': Command<Nothing, MemoryBackendInfo[]>;
  'query-chardev': Command<Nothing, ChardevInfo[]>;
  'query-iothreads': Command<Nothing, IoThreadInfo[]>;
  'object-add': Command<{ 'qom-type': string; id: string; [property: string]: unknown }, Nothing>;
  device_add: Command<{ driver: string; id?: string; bus?: string; [property: string]: unknown }, Nothing>;
  /** Devices, since 7.2. Its name and those of the next two say that they may change. */
  'x-query-virtio': Command<Nothing, { path: string; name: string }[]>;
  'x-query-virtio-status': Command<{ path: string }, { 'num-vqs': number }>;
  /** Where a queue's three parts are in the guest's memory; 0 for one that is not in use. */
  'x-query-virtio-queue-status': Command<
    { path: string; queue: number },
    {
      'vring-num': number;
      'vring-desc': number;
      'vring-avail': number;
      'vring-used': number;
      /** Not where vhost keeps it. */
      'last-avail-idx'?: number;
      'used-idx': number;
    }
  >;
  'qom-list': Command<{ path: string }, ObjectPropertyInfo[]>;
  'qom-get': Command<{ path: string; property: string }, unknown>;
  /** HMP's output, lines ended by CR LF. HMP reports its errors there too. */
  'human-monitor-command': Command<{ 'command-line': string; 'cpu-index'?: number }, string>;
}

export type ArgumentsOf<C extends keyof QmpCommands> = QmpCommands[C]['arguments'];
export type ReturnOf<C extends keyof QmpCommands> = QmpCommands[C]['returns'];

/** What follows the command's name in `execute`: arguments may be left out where none are required. */
export type ExecuteParameters<C extends keyof QmpCommands, Options> =
  Nothing extends ArgumentsOf<C>
    ? [args?: Readonly<ArgumentsOf<C>>, options?: Options]
    : [args: Readonly<ArgumentsOf<C>>, options?: Options];
