/**
 * What the source's side asks of a guest, however that is managed: directSource.ts speaks to QEMU itself,
 * libvirtSource.ts leaves QEMU to libvirt.
 */
import type { QgaTransport } from '../../guest-agent/qga/transport.js';
import type {
  DomainInspection,
  GuestInspection,
  GuestServices,
  MigrationState,
  QmpMonitor,
} from '../../hypervisor/index.js';
import type { TunnelWay } from './libvirtTunnel.js';

/** How the guest is to set out. */
export interface Departure {
  /** Where the relay listens for QEMU. */
  readonly streamPath: string;
  /** The guest's memory is read from the files that it is kept in. */
  readonly isInFiles: boolean;
  /** So little has to be left when QEMU stops the guest, until it is told otherwise. */
  readonly downtimeLimitMs: number;
  /** The guest may be slowed down, should it write faster than the link takes. */
  readonly mayThrottle: boolean;
  /** Of a domain. */
  readonly domain: DomainDeparture | null;
}

export interface DomainDeparture {
  /** This migration's directory on this host. */
  readonly directory: string;
  /** Where the destination's daemon is reached: through its vmmig, or by a URI. */
  readonly to: Omit<TunnelWay, 'switching'> | { readonly uri: string };
  readonly postcopy: boolean;
  readonly persistent: boolean;
  readonly undefineSource: boolean;
  readonly destinationName: string | null;
  /** For the destination, instead of the source's. */
  readonly xml: string | null;
  readonly unsafe: boolean;
  /** libvirt is to slow the guest down, should it write faster than the link takes. */
  readonly autoConverge: boolean;
}

/** Disposing of it leaves the guest as it is. */
export interface SourceGuest extends AsyncDisposable {
  readonly monitor: QmpMonitor;
  /** For what may wait for everything else. */
  readonly patientMonitor: QmpMonitor;
  /** Where the relay is to listen for QEMU. Makes the directory, if need be. */
  streamPath(migrationId: string, directory: string): Promise<string>;
  inspect(signal: AbortSignal): Promise<GuestInspection>;
  /** After `inspect`: what only libvirt knows; null of a guest that it does not manage. */
  inspectForLibvirt(signal: AbortSignal): Promise<DomainInspection | null>;
  /** After `inspect`. */
  inspectServices(signal: AbortSignal): Promise<GuestServices>;
  /** The way to qemu-guest-agent. @param path - of its port, as `inspectServices` tells */
  openQga(path: string): QgaTransport;
  /** Readies QEMU. Nothing is sent yet. */
  prepare(departure: Departure, signal: AbortSignal): Promise<void>;
  /** Resolves when QEMU migrates into the relay. */
  setOut(signal: AbortSignal): Promise<void>;
  /** Has begun, and has neither been undone nor brought to its end. */
  readonly hasSetOut: boolean;
  /** From now on QEMU stops the guest as soon as the rest takes no longer than this at memory speed. */
  allowDowntime(limitMs: number, signal: AbortSignal): Promise<void>;
  /** Slows the guest down, more and more, for as long as it writes faster than the link takes. */
  throttle(signal: AbortSignal): Promise<void>;
  /** Resolves when QEMU has sent everything. @throws when its migration ends in another way */
  sent(signal: AbortSignal): Promise<MigrationState | null>;
  /**
   * Of a switch, once it has set out: resolves when whoever manages the guest has let go of it, stopped as it is, and will
   * not let it run here again unasked. @throws when that will not come
   */
  letGo(): Promise<void>;
  /** Rejects when whoever manages the guest on the destination is out of reach: it could not be let run there. */
  lost(): Promise<never>;
  /** Why it has failed, where whoever manages the guest knows better than the relay that QEMU hung up on. */
  explained(failure: Error): Promise<Error>;
  /** From here on only the caller can say where the guest is: it is not let run here by whatever fails. */
  hold(): void;
  /** Cancels what is under way, whose relay has hung up, and lets the guest run again if it ran before. */
  undo(wasRunning: boolean, signal: AbortSignal): Promise<void>;
  /** Ends what is left of a guest that runs on the destination. */
  release(signal: AbortSignal): Promise<void>;
}
