/** Stands between two relays with the migration's key, and changes what goes from the source to the destination. */

import type { LinkCredentials } from '../../relay/link/connection.js';
import { DurableLink } from '../../relay/link/durableLink.js';
import type { Frame } from '../../relay/link/frames.js';
import { dial, listen } from '../../relay/link/handshake.js';
import { host } from './peers.js';
import type { Between } from './rig.js';

/** What becomes of a frame: its payload as it goes on, null to leave it out. */
export type Tamper = (frame: Frame) => Buffer | null;

export function tamperingProxy(tamper: Tamper) {
  return async (port: number, credentials: LinkCredentials): Promise<Between> => {
    const listener = await listen(credentials, { host });
    const links: DurableLink[] = [];
    const lost = () => {
      for (const link of links) void link.close();
    };
    const joined = listener.joined.then(async (peers) => {
      const connections = peers.length;
      const onward: DurableLink = new DurableLink(await dial({ host, port }, credentials, { connections }), {
        immediate: ({ type, sequence, payload }) => back.send(type, sequence, payload),
        lost,
      });
      const back: DurableLink = new DurableLink(peers, {
        ordered: (frame) => {
          const payload = tamper(frame);
          if (payload !== null) onward.sendOrdered(frame.type, Buffer.from(payload));
        },
        immediate: (frame) => {
          const payload = tamper(frame);
          if (payload !== null) onward.send(frame.type, frame.sequence, Buffer.from(payload));
        },
        lost,
      });
      links.push(onward, back);
    });
    joined.catch(() => {});
    return {
      port: listener.port,
      async [Symbol.asyncDispose]() {
        await listener[Symbol.asyncDispose]();
        await joined.catch(() => {});
        await Promise.all(links.map((link) => link.close()));
      },
    };
  };
}
