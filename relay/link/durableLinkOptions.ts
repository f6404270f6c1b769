/** What a durable link is told, and whom it tells what. */
import type { RelayError } from '../errors.js';
import type { BulkWindow } from './bulkWindow.js';
import type { Endpoint, LinkCredentials } from './connection.js';
import type { Listener } from './handshake.js';
import type { LinkHandlers, LinkOptions } from './link.js';

export interface DurableLinkHandlers extends LinkHandlers {
  /** The connections are gone; the link goes on when there are new ones. */
  interrupted?(cause: RelayError): void;
  resumed?(gapMs: number): void;
  /** In place of `lost`: there is a peer, but one that does not know this link. The link has ended. */
  replaced?(cause: RelayError): void;
  /** Bulk data may be sent again: see `isOpenForBulk`. */
  drained?(): void;
}

export interface EndureOptions {
  /** So long may the peer be out of reach, counted by each side for itself; then `lost` is called. */
  readonly reconnectTimeoutMs: number;
  /** The source relay dials; the destination relay lets it in again, at a listener that stays open and is the link's from now on. */
  readonly by:
    | { readonly dial: Endpoint; readonly credentials: LinkCredentials }
    | { readonly accept: Pick<Listener, 'door'> };
  /** Silence of so long interrupts the link. Default: three round trips and 2 s. */
  readonly silenceLimitMs?: number;
}

export interface DurableLinkOptions extends LinkOptions {
  readonly bulkWindow?: BulkWindow;
}
