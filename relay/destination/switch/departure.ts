/**
 * What the source tells last before it lets go of the guest: which pages are still to come, and the state of the devices.
 * Both come in pieces, as `switchFrames.ts` of the source makes them, and are read as hostile.
 */
import { RelayError } from '../../errors.js';
import { unpackPages } from '../../link/batch.js';
import { decodeRemoteSet } from '../../store/remoteSet.js';
import type { PageRun } from '../postcopy/blockPages.js';

const maxDeviceBytes = 256 * 1024 * 1024;
const maxRemoteBytes = 64 * 1024 * 1024;
const maxPieceBytes = 1024 * 1024;
/** Length and encoding. */
const headerBytes = 5;

export class Departure {
  readonly #remote: Buffer[] = [];
  readonly #device: Buffer[] = [];
  #remoteBytes = 0;
  #deviceBytes = 0;

  /** @throws RelayError VMMIG_LINK_PROTOCOL when it is too much */
  addRemote(payload: Buffer): void {
    this.#remoteBytes += payload.length;
    if (this.#remoteBytes > maxRemoteBytes) throw malformed('list of pages to come');
    this.#remote.push(payload);
  }

  /** @throws RelayError VMMIG_LINK_PROTOCOL when it is malformed, or too much */
  addDevice(payload: Buffer): void {
    const lengthBytes = payload.length < headerBytes ? 0 : payload.readUInt32BE(0);
    this.#deviceBytes += lengthBytes;
    if (lengthBytes === 0 || lengthBytes > maxPieceBytes || this.#deviceBytes > maxDeviceBytes)
      throw malformed('device state');
    this.#device.push(unpackPages(payload[4]!, payload.subarray(headerBytes), lengthBytes));
  }

  /** The pages that are still to come. @throws RelayError VMMIG_LINK_PROTOCOL when the guest does not have them */
  *remote(pagesOfBlock: readonly number[]): Iterable<PageRun> {
    for (const [block, runs] of decodeRemoteSet(Buffer.concat(this.#remote), pagesOfBlock).entries())
      for (let at = 0; at < runs.length; at += 2) yield { block, page: runs[at]!, count: runs[at + 1]! };
  }

  /** The state of the devices, once. */
  takeDevices(): Buffer {
    return Buffer.concat(this.#device.splice(0));
  }
}

function malformed(what: string): RelayError {
  return new RelayError('VMMIG_LINK_PROTOCOL', `the source relay sent a malformed ${what}`);
}
