/** What a destination has to be able to take in. Plain data: it travels to the destination as JSON. */
import type { CpuFeatureWord } from '../../cpuFeatures.js';
import type { RamBlockInfo } from '../../ramBlocks.js';
import type { CommandLinePlan } from '../commandLine/index.js';

export interface DestinationDisk {
  /** On the destination; or a URI, or what else QEMU calls an image that is no file. */
  readonly path: string;
  readonly format: string;
  readonly sizeBytes: number;
  /** Of the image on the source, where it is a file: the same number speaks for shared storage. */
  readonly sourceInode: number | null;
  /** What the guest reads is not in the image as it is. */
  readonly isEncrypted?: boolean;
  /** Of an encrypted one, where the destination has its key. */
  readonly keyFile?: string | undefined;
}

export interface DestinationPlan {
  readonly commandLine: CommandLinePlan;
  readonly machineType: string;
  readonly accelerator: 'kvm' | 'other';
  /** Of the guest's first processor; none where QEMU did not tell. */
  readonly cpuFeatures?: readonly CpuFeatureWord[];
  readonly sourceVersion: { readonly major: number; readonly minor: number };
  readonly ramBlocks: readonly RamBlockInfo[];
  readonly disks: readonly DestinationDisk[];
  /** The monitor that the destination's QEMU will have. */
  readonly qmpPath: string;
  /** Where vmmig keeps its sockets and logs of the migration; made if only its parent exists. */
  readonly runDirectory: string;
  /** Where the destination keeps the guest's log. */
  readonly stateDirectory?: string;
  /** The guest is to run there before all of its memory is there. */
  readonly postcopy?: boolean;
}
