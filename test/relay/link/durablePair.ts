/** Two durable links with a network between them that can fail, and everything that they were handed. */
import type { RelayError } from '../../../relay/errors.js';
import type { LinkCredentials } from '../../../relay/link/connection.js';
import { DurableLink } from '../../../relay/link/durableLink.js';
import type { DurableLinkOptions } from '../../../relay/link/durableLinkOptions.js';
import { dial, type Listener, listen } from '../../../relay/link/handshake.js';
import { host, newCredentials } from '../peers.js';
import { Network } from './network.js';

export interface Arrived {
  readonly type: number;
  readonly sequence: number;
  readonly text: string;
  readonly lengthBytes: number;
}

export interface Side {
  link: DurableLink;
  ordered: Arrived[];
  immediate: Arrived[];
  lost: RelayError[];
  replaced: RelayError[];
  interrupted: RelayError[];
  resumedMs: number[];
  drained: number;
}

export interface DurablePair extends AsyncDisposable {
  readonly source: Side;
  readonly destination: Side;
  readonly network: Network;
  readonly listener: Listener;
  readonly credentials: LinkCredentials;
}

export interface PairOptions {
  connections?: number;
  reconnectTimeoutMs?: number;
  silenceLimitMs?: number;
  endures?: boolean;
  source?: DurableLinkOptions;
}

export async function durablePair(options: PairOptions = {}): Promise<DurablePair> {
  const { connections = 3, reconnectTimeoutMs = 30_000, silenceLimitMs = 700, endures = true } = options;
  const credentials = newCredentials();
  const listener = await listen(credentials, { host, staysOpen: true });
  const network = await Network.to(listener.port);
  const endpoint = { host, port: network.port };
  const [dialed, accepted] = await Promise.all([dial(endpoint, credentials, { connections }), listener.joined]);
  const source = side((handlers) => new DurableLink(dialed, handlers, options.source));
  const destination = side((handlers) => new DurableLink(accepted, handlers));
  if (endures) {
    source.link.endure({ reconnectTimeoutMs, silenceLimitMs, by: { dial: endpoint, credentials } });
    destination.link.endure({ reconnectTimeoutMs, silenceLimitMs, by: { accept: listener } });
  }
  return {
    source,
    destination,
    network,
    listener,
    credentials,
    async [Symbol.asyncDispose]() {
      await Promise.all([source.link.close(), destination.link.close()]);
      await listener[Symbol.asyncDispose]();
      await network[Symbol.asyncDispose]();
    },
  };
}

export function side(make: (handlers: ConstructorParameters<typeof DurableLink>[1]) => DurableLink): Side {
  const arrived = ({ type, sequence, payload }: { type: number; sequence: number; payload: Buffer }): Arrived => ({
    type,
    sequence,
    text: payload.toString('latin1', 0, 40).replace(/\0+$/, ''),
    lengthBytes: payload.length,
  });
  const record: Omit<Side, 'link'> = {
    ordered: [],
    immediate: [],
    lost: [],
    replaced: [],
    interrupted: [],
    resumedMs: [],
    drained: 0,
  };
  const link = make({
    ordered: (frame) => record.ordered.push(arrived(frame)),
    immediate: (frame) => record.immediate.push(arrived(frame)),
    lost: (cause) => record.lost.push(cause),
    replaced: (cause) => record.replaced.push(cause),
    interrupted: (cause) => record.interrupted.push(cause),
    resumed: (gapMs) => record.resumedMs.push(gapMs),
    drained: () => {
      side.drained++;
    },
  });
  const side: Side = Object.assign(record, { link });
  return side;
}

/** A payload that begins with a text. */
export function payloadOf(text: string, lengthBytes = text.length): Buffer {
  const payload = Buffer.alloc(Math.max(lengthBytes, text.length));
  payload.write(text, 'latin1');
  return payload;
}
