/** A stretch of a RAM block, in bytes. */
export interface RamStretch {
  readonly block: string;
  readonly offset: number;
  readonly lengthBytes: number;
}
