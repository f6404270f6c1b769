/** How much bulk data may be under way on a durable link. */

export interface SendingWindow {
  readonly windowBytes: number;
  readonly inFlightBytes: number;
  /** What may be sent now. */
  readonly roomBytes: number;
  /** What may wait in this process for the kernel to take it, on each connection. */
  readonly backlogBytes: number;
  /** And in the kernel for TCP to send it; null: as much as the kernel likes. */
  readonly unsentBytes: number | null;
  /** Whether it goes by round trips, which are measured often then. */
  readonly needsRoundTrips: boolean;
  sent(lengthBytes: number): void;
  /** The other side has received so much more. */
  received(lengthBytes: number, nowMs: number): void;
  /** A small frame, that waited behind no bulk data on this host, was answered after so long. */
  roundTrip(elapsedMs: number, nowMs: number): void;
  /** The connections are new: nothing is under way. */
  reset(): void;
}

/** Leaves it to TCP how much is in the network: for a link on which nothing has to overtake. */
export class OpenWindow implements SendingWindow {
  readonly windowBytes = Number.POSITIVE_INFINITY;
  readonly roomBytes = Number.POSITIVE_INFINITY;
  readonly needsRoundTrips = false;
  /** Enough for a busy process to be late; no more, as what one connection was given no other can carry. */
  readonly backlogBytes = 1024 * 1024;
  readonly unsentBytes = 1024 * 1024;
  inFlightBytes = 0;

  sent(lengthBytes: number): void {
    this.inFlightBytes += lengthBytes;
  }

  received(lengthBytes: number): void {
    this.inFlightBytes -= lengthBytes;
  }

  roundTrip(): void {}

  reset(): void {
    this.inFlightBytes = 0;
  }
}
