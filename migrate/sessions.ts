/**
 * Sessions with the two hosts of a migration, opened when they are needed, and again when they were lost. A service may
 * have become the one that the guest needs: they are left to their own end.
 */
import type { InventoryHost } from '../hosts/index.js';
import { VmmigError } from './errors.js';
import { openSide, type Side } from './sides.js';

const openTimeoutMs = 10_000;

export class Sessions implements AsyncDisposable {
  readonly #hosts: Readonly<Record<'source' | 'destination', InventoryHost>>;
  /** Whether the services that were started are not to be ended with the sessions. */
  leavesServices = false;
  readonly #open = new Map<'source' | 'destination', Promise<Side>>();

  constructor(source: InventoryHost, destination: InventoryHost) {
    this.#hosts = { source, destination };
  }

  /** @throws VmmigError VMMIG_HOST_SILENT when the host cannot be reached */
  async side(which: 'source' | 'destination'): Promise<Side> {
    const known = this.#open.get(which);
    if (known !== undefined) return await known;
    const host = this.#hosts[which];
    const opening = openSide(host, AbortSignal.timeout(openTimeoutMs)).catch((cause: Error) => {
      this.#open.delete(which);
      throw new VmmigError('VMMIG_HOST_SILENT', `${host.name} cannot be asked: ${cause.message}`, { cause });
    });
    this.#open.set(which, opening);
    const side = await opening;
    void side.rpc.closed.then(() => {
      if (this.#open.get(which) === opening) this.#open.delete(which);
    });
    return side;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const sides = await Promise.all([...this.#open.values()].map((side) => side.catch(() => null)));
    await Promise.all(sides.map((side) => (this.leavesServices ? side?.leave() : side?.leave())));
  }
}
