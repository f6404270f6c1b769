/** What a durable link is told, and whom it tells what. */
import type { RelayError } from '../errors.js';
import type { Endpoint, LinkCredentials } from './connection.js';
import type { Frame } from './frames.js';
import type { Listener } from './handshake.js';
import type { SendingWindow } from './sendingWindow.js';
import type { TokenBucket } from './tokenBucket.js';

export interface DurableLinkHandlers {
  /** An ordered frame, in order. */
  ordered?(frame: Frame): void;
  /** Any other frame, as it arrives. */
  immediate(frame: Frame): void;
  /** Once, when the link is gone; not after `close()`. */
  lost(cause: RelayError): void;
  /** The connections are gone; the link goes on when there are new ones. */
  interrupted?(cause: RelayError): void;
  resumed?(gapMs: number): void;
  /** In place of `lost`: there is a peer, but one that does not know this link. The link has ended. */
  replaced?(cause: RelayError): void;
  /** Less is kept: the other side has received some of what was sent. */
  received?(): void;
  /** Bulk data may be sent again: see `isOpenForBulk`. */
  drained?(): void;
}

/** TCP bridges most of what is shorter by itself; to send again what was under way costs more than to wait for it. */
export const interruptingSilenceMs = 5000;

export interface EndureOptions {
  /** So long may the peer be out of reach, counted by each side for itself; then `lost` is called. */
  readonly reconnectTimeoutMs: number;
  /** The source relay dials; the destination relay lets it in again, at a listener that stays open and is the link's from now on. */
  readonly by:
    | { readonly dial: Endpoint; readonly credentials: LinkCredentials }
    | { readonly accept: Pick<Listener, 'door'> };
  /** Silence of so long on all connections interrupts the link. Default: of three round trips and 2 s on the first one. */
  readonly silenceLimitMs?: number;
}

export interface DurableLinkOptions {
  /** A peer that has been silent for so long is gone, as long as the link does not endure. */
  readonly silenceLimitMs?: number;
  /** Caps what is sent. */
  readonly bucket?: TokenBucket | null;
  /** How much bulk data may be under way. Default: so much that urgent frames need not queue behind it. */
  readonly bulkWindow?: SendingWindow;
  /** What was received is told so much later, together with what has come meanwhile. Default 1. */
  readonly receiptDelayMs?: number;
}
