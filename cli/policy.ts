/** What the command line needs of `migrate/` and `lab/`, loaded only when a verb asks for it. */

import type {
  CancelResult,
  DoctorReport,
  GuestList,
  Hooks,
  HostCheck,
  MigrateRequest,
  MigrationMode,
  MigrationReport,
  PreflightReport,
  RecoverRequest,
  ScanReport,
  StatusReport,
  StatusRequest,
  SwitchRequest,
} from '../migrate/index.js';
import type { Names } from './completion/names.js';

interface Where {
  readonly inventoryPath?: string;
  readonly signal?: AbortSignal;
}

export interface Policy {
  /** Resolves for every outcome of a migration that was begun. */
  teleport(request: MigrateRequest, hooks: Hooks): Promise<MigrationReport>;
  switchOver(request: SwitchRequest, hooks: Hooks): Promise<MigrationReport>;
  preflight(mode: MigrationMode, request: MigrateRequest, hooks: Hooks): Promise<PreflightReport>;
  /** Asks the vmmig that moves the guest from this machine to cancel, and waits for its end. */
  cancelMigration(vm: string): Promise<CancelResult>;
  /** The migrations that are not over. */
  status(request: StatusRequest): Promise<StatusReport>;
  /** Resolves with the report of the migration that was brought to its end. */
  recover(request: RecoverRequest, hooks: Hooks): Promise<MigrationReport>;
  listGuests(where: Where): Promise<GuestList>;
  history(): Promise<readonly MigrationReport[]>;
  /** By its id, or the latest of a guest. */
  showReport(idOrVm: string): Promise<MigrationReport>;
  doctor(hooks: { readonly signal?: AbortSignal }): Promise<DoctorReport>;
  checkHost(host: string, where: Where): Promise<HostCheck>;
  agentScan(vm: string, where: Where & { readonly from?: string }): Promise<ScanReport>;
  inspectStream(path: string): Promise<{ readonly summary: unknown; readonly text: string }>;
  /** Standard input and output belong to it until it resolves. */
  runHostService(): Promise<void>;
  listHosts(where: Where): Promise<HostList>;
  addHost(host: NewHost, where: Where): Promise<void>;
  /** What the inventory file names; asks no host. */
  inventoryNames(where: Where): Promise<Names>;
  removeHost(name: string, where: Where): Promise<void>;
}

export interface HostList {
  readonly schema: 'vmmig.hosts/1';
  readonly hosts: readonly { readonly name: string; readonly ssh: string; readonly guests: readonly string[] }[];
}

export interface NewHost {
  readonly name: string;
  /** `user@host:port`, or a name of `~/.ssh/config`. */
  readonly ssh: string;
}

export type Lab = typeof import('../lab/index.js');

export function loadPolicy(): Promise<Policy> {
  return import('../migrate/index.js');
}

export function loadLab(): Promise<Lab> {
  return import('../lab/index.js');
}
