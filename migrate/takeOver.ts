/**
 * A destination relay that died after the switch is replaced: another one goes on where it was. Nothing of the guest is
 * lost by that, but it stands still as soon as it touches memory that is not there.
 */
import { call, type GuestAddress, type TakeOver } from '../host-service/protocol.js';
import { linkAddress } from '../hosts/index.js';
import type { Side } from './sides.js';

export interface TakeOverSides {
  readonly source: Side;
  /** Its service becomes the one that the guest needs, if none is at work: it is to be left (`Side.leave`), not ended. */
  readonly destination: Side;
}

const takeOverTimeoutMs = 60_000;
const reconnectTimeoutMs = 20_000;

/**
 * Makes the destination's service take the place of one that is gone, and the source's meet it. Does nothing where a
 * service is at work at the destination that has met the source. Can be tried again when it fails.
 *
 * @returns what was found: `waiting` when a relay has been put in place
 * @throws VMMIG_TAKEOVER when there is nothing to take over; what calls to hosts throw
 */
export async function takeOver(
  { source, destination }: TakeOverSides,
  guest: GuestAddress,
  migrationId: string,
): Promise<TakeOver['state']> {
  const found = await call(
    destination.rpc,
    'destination.takeOver',
    { guest, runDir: destination.host.runDir, migrationId },
    { timeoutMs: takeOverTimeoutMs },
  );
  if (found.state === 'atWork') return found.state;
  const endpoint = found.state === 'complete' ? null : { host: await linkAddress(destination.host), port: found.port };
  await call(
    source.rpc,
    'source.reconnect',
    { runDir: source.host.runDir, migrationId, endpoint },
    { timeoutMs: reconnectTimeoutMs },
  );
  return found.state;
}
