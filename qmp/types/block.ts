/** Block devices and jobs as QMP speaks of them. Source: QEMU, qapi/block-core.json and job.json. */

export interface ImageInfo {
  filename: string;
  format: string;
  'dirty-flag'?: boolean;
  /** Bytes allocated on the host. */
  'actual-size'?: number;
  /** Bytes the guest sees. */
  'virtual-size': number;
  'cluster-size'?: number;
  encrypted?: boolean;
  compressed?: boolean;
  'backing-filename'?: string;
  'full-backing-filename'?: string;
  'backing-filename-format'?: string;
  'backing-image'?: ImageInfo;
  'format-specific'?: { type: string; data: Record<string, unknown> };
}

/** A node of the block graph. */
export interface BlockDeviceInfo {
  file: string;
  'node-name'?: string;
  ro: boolean;
  /** The block driver: `raw`, `qcow2`, `file`, … */
  drv: string;
  backing_file?: string;
  backing_file_depth: number;
  encrypted: boolean;
  /** From 10.0 on: false while another process, a migration's peer, owns the image. */
  active?: boolean;
  detect_zeroes: 'off' | 'on' | 'unmap';
  image: ImageInfo;
  cache: { writeback: boolean; direct: boolean; 'no-flush': boolean };
  'dirty-bitmaps'?: { name?: string; count: number; granularity: number; recording: boolean; busy: boolean }[];
}

/** A device of the guest, and what is in it. */
export interface BlockInfo {
  /** The name of its block backend; empty for devices made with `-device drive=NODE`. */
  device: string;
  /** The id or QOM path of the guest's device. */
  qdev?: string;
  type: string;
  removable: boolean;
  locked: boolean;
  inserted?: BlockDeviceInfo;
  tray_open?: boolean;
  'io-status'?: 'ok' | 'failed' | 'nospace';
}

export interface BlockStats {
  device?: string;
  qdev?: string;
  'node-name'?: string;
  stats: {
    rd_bytes: number;
    wr_bytes: number;
    rd_operations: number;
    wr_operations: number;
    flush_operations: number;
    rd_total_time_ns: number;
    wr_total_time_ns: number;
    flush_total_time_ns: number;
    wr_highest_offset: number;
    idle_time_ns?: number;
    failed_rd_operations: number;
    failed_wr_operations: number;
    failed_flush_operations: number;
  };
  parent?: BlockStats;
  backing?: BlockStats;
}

export interface JobInfo {
  id: string;
  type: string;
  status:
    | 'undefined'
    | 'created'
    | 'running'
    | 'paused'
    | 'ready'
    | 'standby'
    | 'waiting'
    | 'pending'
    | 'aborting'
    | 'concluded'
    | 'null';
  'current-progress': number;
  'total-progress': number;
  error?: string;
}
