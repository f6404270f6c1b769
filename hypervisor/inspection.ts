/** What is known of a guest and its QEMU before anything is changed. Plain data: it travels between hosts as JSON. */
import type { HostDisk } from '../disk/index.js';
import type { MigrationStatus, RunState } from '../qmp/index.js';
import type { CpuFeatureWord } from './cpuFeatures.js';
import type { GpaRange } from './gpaMap.js';
import type { RamBlockInfo } from './ramBlocks.js';

/** A process and when it started: a pid alone may be another process tomorrow. */
export interface ProcessId {
  readonly pid: number;
  /** Clock ticks since the host's boot (`/proc/PID/stat`, field 22). */
  readonly startTime: number;
}

export interface ProcessInspection extends ProcessId {
  readonly argv: readonly string[];
  /** The working directory, which relative paths in `argv` start from. */
  readonly cwd: string;
  /** The file that was executed, after all links and wrappers. */
  readonly executable: string;
  readonly uid: number;
  readonly gid: number;
}

export interface BlockDevice extends HostDisk {
  /** Of the guest's device. */
  readonly qomPath: string | null;
  readonly readOnly: boolean;
  /** Others may write to it at the same time (`share-rw`). */
  readonly shareable: boolean;
  /** CD-ROM and floppy drives. */
  readonly removable: boolean;
  /** What QEMU calls an image that is no file or device of its host: `nbd://…`, `rbd:…`, `json:{…}`; null for others. */
  readonly imageUri: string | null;
  /** By QEMU, in the image: what the guest reads is not in it as it is. */
  readonly isEncrypted: boolean;
  /** Inode of the image file; null for block devices and what is not a file here. */
  readonly imageInode: number | null;
}

export interface MemoryBackend {
  readonly id: string;
  readonly sizeBytes: number;
  /** Whether the memory is a mapping shared with others, such as a file. */
  readonly shared: boolean;
}

export interface GuestInspection {
  readonly name: string;
  readonly qmpPath: string;
  /** The host's end of the guest agent's port: as given, else the one QEMU has for `org.vmmig.agent.0`. */
  readonly agentPath: string | null;
  readonly qemuVersion: {
    readonly major: number;
    readonly minor: number;
    readonly micro: number;
    readonly package: string;
  };
  readonly process: ProcessInspection;
  /** Versioned, such as `pc-q35-7.2`, whatever alias the guest was started with. */
  readonly machineType: string;
  readonly accelerator: 'kvm' | 'other';
  /** The QOM type of the first CPU, such as `host-x86_64-cpu`. */
  readonly cpuType: string;
  readonly cpuCount: number;
  /** Of the first CPU; none where QEMU does not tell. */
  readonly cpuFeatures: readonly CpuFeatureWord[];
  readonly runState: RunState;
  readonly running: boolean;
  readonly memory: {
    /** What the guest has as RAM, hot-plugged modules included. */
    readonly totalBytes: number;
    readonly blocks: readonly RamBlockInfo[];
    readonly gpaMap: readonly GpaRange[];
    readonly backends: readonly MemoryBackend[];
  };
  readonly disks: readonly BlockDevice[];
  /** QOM types of the devices that were added to the machine, such as `vfio-pci`. */
  readonly deviceTypes: readonly string[];
  readonly migration: {
    readonly status: MigrationStatus | 'none';
    /** Why QEMU refuses to migrate this guest. */
    readonly blockers: readonly string[];
  };
}
