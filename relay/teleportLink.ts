/** The link of a teleport, the same on both sides: nothing on it is urgent, and it endures from its beginning. */
import type { LinkConnection } from './link/connection.js';
import { DurableLink } from './link/durableLink.js';
import { type DurableLinkHandlers, type EndureOptions, interruptingSilenceMs } from './link/durableLinkOptions.js';
import { OpenWindow } from './link/sendingWindow.js';
import type { TokenBucket } from './link/tokenBucket.js';

export interface TeleportLinkOptions {
  readonly by: EndureOptions['by'];
  /** How long the other relay may be out of reach; 0: a lost connection is the end. */
  readonly reconnectTimeoutMs: number;
  readonly bucket?: TokenBucket | null;
  readonly silenceLimitMs?: number;
}

/** Nothing waits for a receipt but memory. */
const receiptDelayMs = 5;

export function teleportLink(
  peers: readonly LinkConnection[],
  handlers: DurableLinkHandlers,
  { by, reconnectTimeoutMs, bucket = null, silenceLimitMs }: TeleportLinkOptions,
): DurableLink {
  const link = new DurableLink(peers, handlers, {
    bucket,
    bulkWindow: new OpenWindow(),
    receiptDelayMs,
    ...(silenceLimitMs === undefined ? {} : { silenceLimitMs }),
  });
  if (reconnectTimeoutMs > 0)
    link.endure({ reconnectTimeoutMs, silenceLimitMs: silenceLimitMs ?? interruptingSilenceMs, by });
  return link;
}
