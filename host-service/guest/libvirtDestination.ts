/**
 * A guest that libvirt brings to this host: its daemon here starts QEMU, takes the guest's stream from where the relay
 * puts it, and lets the guest run when it has all of it. Which it has not before it is handed the state of the devices.
 */
import { access } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import {
  type DomainAddress,
  type DomainState,
  domainState,
  HypervisorError,
  isActive,
  LibvirtError,
  openMonitor,
  ownerNamed,
  type QmpMonitor,
  qemuOwner,
  Virsh,
} from '../../hypervisor/index.js';
import { eventTimeMs } from '../clock.js';
import { makeStreamPath, removeStreamPath } from './libvirtPaths.js';

const pollMs = 25;
const watchMs = 1_000;
const startTimeoutMs = 60_000;
/** For a daemon that is busy with ending a QEMU. */
const endTimeoutMs = 10_000;
/** For one that is being restarted: what was connected to it hears of that when it next asks. */
const restartMs = 3_000;
/** From the last byte that QEMU gets to the guest's running. */
const loadTimeoutMs = 30_000;
/** Mostly it takes less than that. */
const usualLoadMs = 500;

/** What became of a guest that was to run here. */
export type Fate = 'running' | 'ended' | 'unknown';

export class LibvirtDestination implements AsyncDisposable {
  readonly #virsh: Virsh;
  readonly #address: DomainAddress;
  readonly #monitor: QmpMonitor;
  readonly #migrationId: string;
  readonly #over = new AbortController();
  /** When QEMU said that the guest runs, by this host's clock. */
  #resumed: Promise<number> = new Promise(() => {});
  #hasResumed = false;
  /** libvirt has ended QEMU, which had not run the guest. */
  #hasGivenUp = false;

  constructor(address: DomainAddress, migrationId: string) {
    this.#address = address;
    this.#migrationId = migrationId;
    this.#virsh = new Virsh(address.uri);
    this.#monitor = openMonitor(this.#virsh, address);
  }

  /** @param user - that the domain's own label names; null: QEMU's is the daemon's. @returns where QEMU is going to listen */
  async prepare(user: string | null): Promise<string> {
    const owner = user === null ? await qemuOwner() : await ownerNamed(user);
    return await makeStreamPath(this.#migrationId, owner);
  }

  /** Resolves when QEMU listens. */
  async listens(streamPath: string): Promise<void> {
    const { signal } = this.#over;
    for (const deadline = Date.now() + startTimeoutMs; ; await delay(pollMs, undefined, { signal })) {
      const isThere = await access(streamPath).then(
        () => true,
        () => false,
      );
      if (isThere) return this.#watch();
      if (Date.now() > deadline)
        throw new HypervisorError(
          'VMMIG_DESTINATION_START',
          `libvirt did not start a QEMU for ${this.#address.domain}`,
        );
    }
  }

  /** Resolves when the domain that was being brought here is gone. @throws when this is disposed of before */
  async gone(): Promise<void> {
    const { signal } = this.#over;
    for (;;) {
      try {
        const found = await domainState(this.#virsh, this.#address.domain, { signal, isPatient: true });
        if (!isActive(found)) return;
      } catch (thrown) {
        // A daemon that is down says nothing about its guests.
        if (signal.aborted || !(thrown instanceof LibvirtError)) throw thrown;
      }
      await delay(watchMs, undefined, { signal, ref: false });
    }
  }

  /** Early: the event may come sooner than a program that listens for it starts. */
  #watch(): void {
    this.#resumed = this.#monitor.waitFor('RESUME').then(eventTimeMs);
    this.#resumed.then(
      () => {
        this.#hasResumed = true;
      },
      () => {},
    );
  }

  /** Resolves with when the guest began to run, by this host's clock. @param handOver - what makes it possible */
  async runs(handOver: () => Promise<void>): Promise<number> {
    const { domain } = this.#address;
    await handOver();
    // To ask slows it down.
    await Promise.race([this.#resumed.catch(() => {}), delay(usualLoadMs, undefined, { ref: false })]);
    for (const deadline = Date.now() + loadTimeoutMs; ; await delay(pollMs)) {
      const found = await domainState(this.#virsh, domain);
      if (found?.state === 'running') return await Promise.race([this.#resumed, delay(pollMs).then(() => Date.now())]);
      if (!isActive(found)) throw this.#notLoaded();
      if (Date.now() > deadline)
        throw new HypervisorError(
          'VMMIG_DESTINATION_LOAD',
          `libvirt has not let ${domain} run within ${loadTimeoutMs} ms`,
        );
    }
  }

  /**
   * Ends a guest that has surely not run here, or tells that it may have.
   * @param mayRun - libvirt has been given all that it needs to let the guest run: a domain that is gone may have run then
   */
  async settle(mayRun: boolean): Promise<Fate> {
    const { domain } = this.#address;
    let hasAsked = false;
    const askedAtMs = Date.now();
    for (const deadline = askedAtMs + endTimeoutMs; ; await delay(pollMs)) {
      let found: DomainState | null;
      try {
        found = await domainState(this.#virsh, domain);
      } catch (thrown) {
        if (!(thrown instanceof LibvirtError)) throw thrown;
        if (Date.now() - askedAtMs > restartMs) return 'unknown';
        continue;
      }
      if (!isActive(found)) return mayRun && !this.#hasGivenUp ? 'unknown' : 'ended';
      if (!isWaiting(found!)) return 'running';
      if (!mayRun && !hasAsked) {
        hasAsked = true;
        await this.#virsh.run(['destroy', '--domain', domain]).catch(() => {});
      }
      if (Date.now() > deadline) return 'unknown';
    }
  }

  /** libvirt has ended QEMU here, which had not run the guest: that is sure. */
  get hasGivenUp(): boolean {
    return this.#hasGivenUp;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort();
    await this.#monitor.close();
    await this.#virsh[Symbol.asyncDispose]();
    await removeStreamPath(this.#migrationId);
  }

  /** What QEMU said is in libvirt's log of it. */
  #notLoaded(): HypervisorError {
    this.#hasGivenUp = !this.#hasResumed;
    const message = `libvirt gave ${this.#address.domain} up: its QEMU did not take the guest (see /var/log/libvirt/qemu)`;
    return new HypervisorError('VMMIG_DESTINATION_LOAD', message);
  }
}

/** QEMU waits for the guest, or has it and has not been told to run it. */
export function isWaiting({ state, reason }: DomainState): boolean {
  return state === 'paused' && (reason === 'migrating' || reason === 'starting up' || reason === 'unknown');
}
