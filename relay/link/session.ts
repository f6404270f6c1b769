/** What two relays call the link that they have with each other, so that no connection of another one is taken for its own. */
import { RelayError } from '../errors.js';
import type { LinkConnection } from './connection.js';

/**
 * Both sides derive the same from the TLS session of their first connection, and nobody else can (RFC 8446, 7.5).
 *
 * @throws RelayError when that connection is gone; the others are dropped then
 */
export function sessionOf(peers: readonly LinkConnection[]): string {
  try {
    return peers[0]!.tls.exportKeyingMaterial(16, 'EXPORTER-vmmig-link-session', Buffer.alloc(0)).toString('hex');
  } catch (cause) {
    for (const { tls } of peers) tls.destroy();
    throw new RelayError('VMMIG_LINK_LOST', 'the link between the relays broke at once', cause);
  }
}
