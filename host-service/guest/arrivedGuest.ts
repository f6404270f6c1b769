/** What the commit point asks of a guest that was brought to this host: of its QEMU, or of libvirt. */
import { setTimeout as delay } from 'node:timers/promises';
import { type DestinationGuest, endProcess, HypervisorError, letRun } from '../../hypervisor/index.js';
import { QmpCommandError } from '../../qmp/index.js';
import { eventTimeMs } from '../clock.js';
import type { LibvirtDestination } from './libvirtDestination.js';

export interface ArrivedGuest {
  /** Of a switch: resolves when whoever manages it has only to be told that it may run. @throws when that will not come */
  ready(): Promise<void>;
  /** From here on it outlives this service. */
  release(): void;
  /** Resolves with when the guest began to run, by this host's clock. @throws see {@link isRefusal} */
  start(): Promise<number>;
  look(): Promise<'guestRuns' | 'guestWaits' | 'guestGone'>;
  /** Ends one that has not run. @throws when it cannot be made sure of */
  end(): Promise<void>;
  /** What QEMU has said, as far as that is known. */
  lastWords(): Promise<string>;
}

/** Run states of a loaded guest that has never run. */
export const untouched: ReadonlySet<string> = new Set(['inmigrate', 'paused', 'prelaunch']);

const resumeTimeoutMs = 10_000;
const lookTimeoutMs = 5_000;
const pollMs = 1;

/** The guest has not run, and will not: that is sure. Every other failure to start it leaves it open. */
export function isRefusal(error: unknown): boolean {
  return error instanceof HypervisorError && (error.cause instanceof QmpCommandError || givenUp.has(error));
}

/** What libvirt has said no to. */
const givenUp = new WeakSet<Error>();

export function arrivedDirectly(guest: DestinationGuest): ArrivedGuest {
  return {
    async ready() {},
    release: () => guest.release(),
    async start() {
      const resumed = guest.qmp.waitFor('RESUME', { timeoutMs: resumeTimeoutMs }).then(eventTimeMs);
      resumed.catch(() => {});
      // Of a switch: the device state is loaded; that its command to run has been taken note of shows a moment later.
      while ((await guest.qmp.execute('query-status')).status === 'inmigrate') await delay(pollMs);
      await letRun(guest);
      return await resumed.catch(() => Date.now());
    },
    async look() {
      try {
        const { status } = await guest.qmp.execute('query-status', {}, { timeoutMs: lookTimeoutMs });
        return untouched.has(status) ? 'guestWaits' : 'guestRuns';
      } catch {
        return 'guestGone';
      }
    },
    async end() {
      await guest.kill();
      // Also one that was released: it has refused.
      await endProcess(guest);
    },
    lastWords: () => guest.logTail(),
  };
}

/** @param handOver - gives libvirt's QEMU what it needs to run the guest */
export function arrivedByLibvirt(domain: LibvirtDestination, handOver: () => Promise<void>): ArrivedGuest {
  return {
    async ready() {},
    // It is the daemon's, not this service's.
    release: () => {},
    async start() {
      try {
        return await domain.runs(handOver);
      } catch (error) {
        if (domain.hasGivenUp && error instanceof Error) givenUp.add(error);
        throw error;
      }
    },
    look: async () => ((await domain.settle(true)) === 'running' ? 'guestRuns' : 'guestGone'),
    async end() {
      if ((await domain.settle(false)) !== 'ended')
        throw new HypervisorError('VMMIG_PROCESS_END', 'libvirt has not given the domain up here');
    },
    lastWords: async () => 'its log is in /var/log/libvirt/qemu',
  };
}
