/** What the fuzzer knows of a decoder: one entry of the table in `decoders/index.ts`. */

/** What decoding gave. */
export interface Decoded {
  /** Compared between ways of cutting the input up, and after encoding it again. */
  readonly value: unknown;
  /** What the module's encoder makes of it; left out where there is none, or the input was not complete. */
  readonly encoded?: Buffer | undefined;
  /** `encoded` is the input, byte for byte. */
  readonly isVerbatim?: boolean;
}

export interface Decoder {
  readonly name: string;
  /** Sound inputs, the same in each run. */
  seeds(): Buffer[];
  readonly dictionary?: readonly (Buffer | string)[];
  /** Where records begin that can be lost, doubled and moved; without the first. */
  records?(input: Buffer): number[];
  /** Makes checksums and lengths right again, so that what is behind them is reached. */
  repair?(input: Buffer): Buffer;
  /**
   * Decodes an input that comes in these chunks, and says what came of it.
   *
   * @throws what the decoder throws; an `OracleError` where it decodes, but not as it should
   */
  decode(chunks: readonly Buffer[]): Decoded;
  /** Whether this is an error that the decoder may throw. */
  isTyped(error: unknown): boolean;
  /** One input is one chunk, always. */
  readonly isWhole?: boolean;
  /** An input takes so many times as long as others': the short form tries fewer. */
  readonly cost?: number;
  /** Longest input; 16 KiB unless given. */
  readonly maxBytes?: number;
  /** What decoding an input may take besides a hundred times its length; 8 MiB unless given. */
  readonly heldBytes?: number;
}

/** The decoder did what it must not. */
export class OracleError extends Error {
  override readonly name = 'OracleError';
}

/** @throws OracleError */
export function require(holds: boolean, otherwise: () => string): void {
  if (!holds) throw new OracleError(otherwise());
}
