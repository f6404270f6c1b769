/** The virtual machine and its devices as QMP speaks of them. Source: QEMU, qapi/{run-state,machine,pci,qom}.json. */

export type RunState =
  | 'debug'
  | 'inmigrate'
  | 'internal-error'
  | 'io-error'
  | 'paused'
  | 'postmigrate'
  | 'prelaunch'
  | 'finish-migrate'
  | 'restore-vm'
  | 'running'
  | 'save-vm'
  | 'shutdown'
  | 'suspended'
  | 'watchdog'
  | 'guest-panicked'
  | 'colo';

export interface StatusInfo {
  running: boolean;
  status: RunState;
}

export interface VersionInfo {
  qemu: { major: number; minor: number; micro: number };
  package: string;
}

export interface MachineInfo {
  name: string;
  alias?: string;
  'is-default'?: boolean;
  'cpu-max': number;
  'hotpluggable-cpus': boolean;
  'numa-mem-supported': boolean;
  deprecated: boolean;
  'default-cpu-type'?: string;
  'default-ram-id'?: string;
  /** From 8.2 on. */
  acpi?: boolean;
}

export interface CpuInfoFast {
  'cpu-index': number;
  'qom-path': string;
  /** The host's thread that runs it. */
  'thread-id': number;
  props?: Record<string, number>;
  target: string;
}

export interface PciDeviceInfo {
  bus: number;
  slot: number;
  function: number;
  class_info: { desc?: string; class: number };
  id: { device: number; vendor: number; subsystem?: number; 'subsystem-vendor'?: number };
  irq?: number;
  irq_pin: number;
  /** The id given with `-device`; empty without one. */
  qdev_id: string;
  pci_bridge?: { bus: { number: number; secondary: number; subordinate: number }; devices?: PciDeviceInfo[] };
  regions: {
    bar: number;
    type: string;
    /** Loses precision beyond 2^53; -1 when not mapped. */
    address: number;
    size: number;
    prefetch?: boolean;
    mem_type_64?: boolean;
  }[];
}

export interface PciInfo {
  bus: number;
  devices: PciDeviceInfo[];
}

export interface MemoryBackendInfo {
  id?: string;
  /** Bytes. */
  size: number;
  merge: boolean;
  dump: boolean;
  prealloc: boolean;
  share: boolean;
  reserve?: boolean;
  'host-nodes': number[];
  policy: 'default' | 'preferred' | 'bind' | 'interleave';
}

export interface ChardevInfo {
  label: string;
  filename: string;
  /** Whether the guest's side is open: for a virtio-serial port, whether the agent has it open. */
  'frontend-open': boolean;
}

export interface IoThreadInfo {
  id: string;
  'thread-id': number;
  'poll-max-ns': number;
  'poll-grow': number;
  'poll-shrink': number;
  'aio-max-batch': number;
}

export interface ObjectPropertyInfo {
  name: string;
  /** `child<…>` and `link<…>` lead to other objects. */
  type: string;
  description?: string;
  'default-value'?: unknown;
}

export interface CommandLineOptionInfo {
  option: string;
  parameters: { name: string; type: 'string' | 'boolean' | 'number' | 'size'; help?: string; default?: string }[];
}
