/**
 * The destination's part in the move of a domain: the way to the daemon here, the path on which its QEMU listens, and what
 * becomes of the guest. Of a teleport libvirt lets it run when QEMU has all of it; of a switch when it is told to, which it
 * is once, after that has been decided.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type DomainAddress, LibvirtError } from '../../hypervisor/index.js';
import { decisionPath } from '../commit/index.js';
import { type ArrivedGuest, arrivedByLibvirt } from './arrivedGuest.js';
import { DaemonKeeper } from './daemonKeeper.js';
import { LibvirtDestination } from './libvirtDestination.js';
import { type FollowedDaemon, TunnelExit } from './libvirtTunnel.js';

/** What libvirt is told so that it lets the guest of a switch run. */
const wordFile = 'finish';
/** From QEMU's having all memory to libvirt's having noticed. */
const concludeTimeoutMs = 20_000;

export interface DomainArrivalOptions {
  readonly runDir: string;
  readonly migrationId: string;
  readonly key: Buffer;
  readonly ports: readonly [number, number] | null;
  readonly isSwitch: boolean;
  /** That the domain's own label names. */
  readonly user: string | null;
}

export class DomainArrival implements AsyncDisposable {
  /** Where QEMU is going to listen. */
  readonly streamPath: string;
  readonly #address: DomainAddress;
  readonly #options: DomainArrivalOptions;
  readonly #destination: LibvirtDestination;
  readonly #tunnel: TunnelExit;
  #followed: FollowedDaemon | null = null;
  #keeper: DaemonKeeper | null = null;

  private constructor(
    address: DomainAddress,
    options: DomainArrivalOptions,
    parts: { destination: LibvirtDestination; tunnel: TunnelExit; streamPath: string },
  ) {
    this.#address = address;
    this.#options = options;
    this.#destination = parts.destination;
    this.#tunnel = parts.tunnel;
    this.streamPath = parts.streamPath;
    void parts.tunnel.followed.then((followed) => {
      this.#followed = followed;
    });
  }

  /** @param address - where the domain is to be. @throws LibvirtError when the daemon here does not answer */
  static async prepare(address: DomainAddress, options: DomainArrivalOptions): Promise<DomainArrival> {
    const destination = new LibvirtDestination(address, options.migrationId);
    try {
      const streamPath = await destination.prepare(options.user);
      const { migrationId, key, ports, isSwitch: follows } = options;
      const tunnel = await TunnelExit.open({ migrationId, key }, ports, { follows });
      return new DomainArrival(address, options, { destination, tunnel, streamPath });
    } catch (thrown) {
      await destination[Symbol.asyncDispose]();
      throw thrown;
    }
  }

  /** Where the way to the daemon begins. */
  get tunnel(): { readonly port: number; readonly opensAsUsual: boolean } {
    const { port, opensAsUsual } = this.#tunnel;
    return { port, opensAsUsual };
  }

  /** Resolves when QEMU listens. */
  async listens(): Promise<void> {
    await this.#destination.listens(this.streamPath);
  }

  /** Resolves when the domain that was being brought here is gone. @throws when this is disposed of before */
  async gone(): Promise<void> {
    await this.#destination.gone();
  }

  /** What the commit point asks of it. @param handOver - of a teleport: gives QEMU what it needs to run the guest */
  arrived(handOver: () => Promise<void>): ArrivedGuest {
    if (!this.#options.isSwitch) return arrivedByLibvirt(this.#destination, handOver);
    const guest = arrivedByLibvirt(this.#destination, async () => this.#keeper!.run());
    return {
      ...guest,
      ready: () => this.#ready(),
      start: async () => {
        try {
          return await guest.start();
        } catch (cause) {
          if (!this.#followed!.daemon.destroyed) throw cause;
          // Who said that it has not run did not see all of it.
          throw new LibvirtError('VMMIG_LIBVIRT_UNREACHABLE', 'libvirt here has hung up', { cause });
        }
      },
      end: async () => {
        this.#hangUp();
        await guest.end();
      },
    };
  }

  /** Resolves when libvirt's question whether to run the guest is here, and kept from it. */
  async #ready(): Promise<void> {
    const { daemon, finish } = await this.#tunnel.followed;
    const closed = new Promise<never>((_, reject) => {
      const lost = () => reject(new LibvirtError('VMMIG_LIBVIRT_UNREACHABLE', 'libvirt here has hung up'));
      if (daemon.destroyed) lost();
      daemon.once('close', lost);
    });
    closed.catch(() => {});
    const word = await Promise.race([finish.held, closed]);
    const { runDir, migrationId } = this.#options;
    const paths = { word: join(this.#directory, wordFile), decision: decisionPath(runDir, migrationId, 'destination') };
    await writeFile(paths.word, word, { mode: 0o600 });
    this.#keeper = new DaemonKeeper(daemon, paths, this.#address);
  }

  /** libvirt ends what it has not got all of. */
  #hangUp(): void {
    this.#keeper?.[Symbol.dispose]();
    this.#followed?.daemon.destroy();
  }

  /** Resolves when libvirt has noticed that QEMU has all of the guest's memory. */
  async concluded(): Promise<void> {
    const { finish } = this.#followed!;
    await Promise.race([finish.answered, delay(concludeTimeoutMs, undefined, { ref: false })]);
    this.#keeper?.[Symbol.dispose]();
  }

  /** Leaves a guest that runs here to libvirt, also one that does not have all of its memory. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tunnel[Symbol.asyncDispose]();
    await this.#destination[Symbol.asyncDispose]();
  }

  get #directory(): string {
    return join(this.#options.runDir, this.#options.migrationId);
  }
}
