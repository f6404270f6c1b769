/**
 * What can go wrong with a QMP connection: one base class, a closed list of codes.
 *
 * A {@link QmpCommandError} means that QEMU answered. A {@link QmpInterruptedError} means that nobody will ever know from
 * this connection: its `sent` tells whether QEMU may have acted.
 */

export type QmpErrorCode =
  | 'VMMIG_QMP_CONNECT'
  | 'VMMIG_QMP_GREETING'
  | 'VMMIG_QMP_PROTOCOL'
  | 'VMMIG_QMP_COMMAND'
  | 'VMMIG_QMP_INTERRUPTED'
  | 'VMMIG_QMP_OVERFLOW';

/** Base of every error that this module raises on purpose. */
export abstract class QmpError extends Error {
  abstract readonly code: QmpErrorCode;

  constructor(message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
  }
}

/** The transport could not be opened: nothing listens there, no permission, no answer in time. */
export class QmpConnectError extends QmpError {
  readonly code = 'VMMIG_QMP_CONNECT';
}

/** The transport is open, but what is at the other end did not greet and negotiate as a QMP server does. */
export class QmpGreetingError extends QmpError {
  readonly code = 'VMMIG_QMP_GREETING';
}

/** The peer broke the protocol (the connection is ended), or the caller asked for what was not negotiated. */
export class QmpProtocolError extends QmpError {
  readonly code = 'VMMIG_QMP_PROTOCOL';
}

/** QEMU refused or failed a command. */
export class QmpCommandError extends QmpError {
  readonly code = 'VMMIG_QMP_COMMAND';

  /**
   * @param command the command's name
   * @param errorClass QEMU's error class: `GenericError`, `CommandNotFound`, `DeviceNotFound`, …
   * @param desc QEMU's own description, meant for people
   */
  constructor(
    readonly command: string,
    readonly errorClass: string,
    readonly desc: string,
  ) {
    super(`${command}: ${desc}`);
  }
}

/** Who ended the wait: the peer or the network, the caller's signal, the deadline, or our own `close()`. */
export type QmpInterruption = 'disconnect' | 'abort' | 'timeout' | 'closed';

/** A command, a wait for an event or a stream of events ended without its answer. */
export class QmpInterruptedError extends QmpError {
  readonly code = 'VMMIG_QMP_INTERRUPTED';
  /** The command that was waiting, if it was one. */
  readonly command: string | undefined;
  /** True when the command had been handed to the transport: QEMU may have executed it, or may yet. */
  readonly sent: boolean;

  constructor(
    message: string,
    readonly reason: QmpInterruption,
    details: { cause?: unknown; command?: string; sent?: boolean } = {},
  ) {
    super(message, details.cause);
    this.command = details.command;
    this.sent = details.sent ?? false;
  }
}

/** A stream of events was read more slowly than QEMU sent, and its queue is full: events after those queued are lost. */
export class QmpOverflowError extends QmpError {
  readonly code = 'VMMIG_QMP_OVERFLOW';

  constructor(readonly queueLimit: number) {
    super(`more than ${queueLimit} QMP events were waiting to be read; later ones are lost`);
  }
}
