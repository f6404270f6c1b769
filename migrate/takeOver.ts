/**
 * A relay that died after the switch is replaced: another one goes on where it was. The destination's always can be; the
 * source's where the guest's memory is kept in files. Nothing of the guest is lost by that, but it stands still as soon as
 * it touches memory that is not there.
 */
import { call, type GuestAddress } from '../host-service/protocol.js';
import { linkAddress } from '../hosts/index.js';
import type { Side } from './sides.js';

/** A service becomes the one that the guest needs, if none is at work: it is to be left (`Side.leave`), not ended. */
export interface TakeOverSides {
  readonly source: Side;
  readonly destination: Side;
}

export interface Replaced {
  readonly source: boolean;
  readonly destination: boolean;
}

const takeOverTimeoutMs = 60_000;
const reconnectTimeoutMs = 20_000;

/**
 * Makes these services take the place of those that are gone, and meet. Does nothing where services are at work on both
 * hosts that have met. Can be tried again when it fails.
 *
 * @returns what was put in place
 * @throws VMMIG_TAKEOVER when there is nothing to take over; what calls to hosts throw
 */
export async function takeOver(
  { source, destination }: TakeOverSides,
  guest: GuestAddress,
  migrationId: string,
): Promise<Replaced> {
  const there = { runDir: source.host.runDir, migrationId };
  const limits = { timeoutMs: takeOverTimeoutMs };
  // Without a source the destination has no use for another relay.
  const state = await call(source.rpc, 'source.takeOver', { ...there, guest }, limits);
  const isSourceNew = state === 'waiting';
  const { runDir } = destination.host;
  const found = await call(
    destination.rpc,
    'destination.takeOver',
    { guest, runDir, migrationId, isSourceNew },
    limits,
  );
  if (found.state === 'atWork') return { source: false, destination: false };
  const endpoint = found.state === 'complete' ? null : { host: await linkAddress(destination.host), port: found.port };
  await call(source.rpc, 'source.reconnect', { ...there, endpoint }, { timeoutMs: reconnectTimeoutMs });
  return { source: isSourceNew, destination: found.state === 'waiting' && !found.wasAtWork };
}
