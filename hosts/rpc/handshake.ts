/**
 * The first line each end writes, without waiting for the other's:
 *
 *     {"service":"vmmig","protocol":1,"version":"0.1.0"}
 *
 * `protocol` must be equal on both ends; `version` is for messages. The protocol number changes when a method's
 * meaning changes, not when one is added.
 */
import { parseObject } from './jsonLines.js';

export const RPC_PROTOCOL = 1;

export interface Hello {
  service: 'vmmig';
  protocol: number;
  version: string;
}

export function ownHello(version: string): Hello {
  return { service: 'vmmig', protocol: RPC_PROTOCOL, version };
}

/** Undefined when the line is no handshake of vmmig's, whatever its protocol. */
export function parseHello(line: string): Hello | undefined {
  const { service, protocol, version } = (parseObject(line) ?? {}) as Partial<Hello>;
  if (service !== 'vmmig' || typeof protocol !== 'number' || !Number.isInteger(protocol)) return undefined;
  return { service, protocol, version: typeof version === 'string' ? version.slice(0, 64) : 'unknown' };
}
