/** Bounds on what a stream may make the decoder keep in memory. Everything else is of constant size. */
export interface StreamLimits {
  /** Largest PACKAGED command: the device state of a post-copy. QEMU's own bound is 4 GiB. */
  readonly packagedBytes: number;
  readonly vmdescBytes: number;
  readonly ramBlocks: number;
  /** Sum of all blocks' lengths. */
  readonly ramBytes: number;
}

export const DEFAULT_STREAM_LIMITS: StreamLimits = {
  packagedBytes: 256 * 2 ** 20,
  vmdescBytes: 64 * 2 ** 20,
  ramBlocks: 4096,
  ramBytes: 2 ** 44,
};
