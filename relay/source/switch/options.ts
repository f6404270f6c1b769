/** What the source relay of a switch is given, what it tells, and what can be asked of it. */
import type { RelayError } from '../../errors.js';
import type { PageStoreOptions } from '../../store/pageStore.js';
import type { GuestMemory } from '../filePages.js';
import type { SourceRelayState } from '../sourceRelay.js';
import type { Remaining } from './remaining.js';
import type { SwitchLinkOptions, SwitchLinkState } from './switchLink.js';

export interface SwitchSourceOptions extends SwitchLinkOptions {
  /** Where QEMU's `migrate unix:…` connects to. Made with mode 0600, removed at the end. */
  readonly socketPath: string;
  readonly compress: boolean;
  /** Which writes its stream faster where this process may look into it. */
  readonly qemuPid?: number;
  /** QEMU has a return path, and waits there for its destination's answers. */
  readonly answersQemu?: boolean;
  readonly store: PageStoreOptions;
  /** Of a guest whose memory QEMU leaves out of its stream; null: all of it comes through the stream. */
  readonly memory: GuestMemory | null;
  /** QEMU is not to stop the guest before `mayStop`, however little is left. Of no effect where it is kept in files. */
  readonly holdsBack?: boolean;
  /** Of what the guest is expected to use early: 0 to 1, all of it when left open. It goes before the rest. */
  readonly prefetchShare?: number;
}

/** Of a relay that comes after QEMU's stream. */
export type SwitchTakeOverOptions = Omit<SwitchSourceOptions, 'socketPath' | 'reconnectTimeoutBeforeMs'>;

export interface SwitchSourceHandlers {
  /** The guest has stopped, and all that the destination needs to run it is on its way but for the permission: see `go`. */
  ready(): void;
  /** The destination says that the guest runs there. */
  running(): void;
  /** The destination says that it does not, and will not. */
  refused(message: string): void;
  /** After `go`: the network failed; it is tried again. */
  interrupted?(cause: RelayError): void;
  resumed?(gapMs: number): void;
  /** After `go`: there is no link any more, and none is looked for. What the guest needs is kept: see `reconnect`. */
  lost?(cause: RelayError): void;
}

export interface SwitchSourceState extends SourceRelayState, SwitchLinkState {
  readonly remaining: Remaining;
  /** Pages that QEMU has not been let send yet, so that it does not stop the guest; 0 when it is not held back. */
  readonly heldBackPages: number;
  /** Pages that the guest is expected to use early and that are not on their way yet; null while they are not known. */
  readonly expectedUnsentPages: number | null;
  /** Of memory for pages, and in the spill file. */
  readonly storedBytes: number;
  readonly spilledBytes: number;
  /** All that can be sent while the guest runs has been, as far as the destination holds it; false where QEMU's stream says. */
  readonly isSentAhead: boolean;
}
