/**
 * The messages of QMP: what a line from the server means. I/O-free, no state.
 *
 *     greeting = { "QMP": { "version": { "qemu": { "major", "minor", "micro" }, "package" }, "capabilities": [ … ] } }
 *     success  = { "return": value, ["id": any] }
 *     failure  = { "error": { "class": string, "desc": string }, ["id": any] }
 *     event    = { "event": string, ["data": object], "timestamp": { "seconds", "microseconds" } }
 *
 * Unknown members are ignored, as the specification asks. Integers beyond 2^53 lose precision (JSON.parse).
 * Source: QEMU, docs/interop/qmp-spec.rst.
 */
import { QmpProtocolError } from './errors.js';
import type { QmpEvent } from './types/events.js';

export interface QmpVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
}

/** What the server says of itself when a client connects. */
export interface QmpGreeting {
  readonly version: QmpVersion;
  /** The distribution's name for its build: `Debian 1:7.2+dfsg-7+deb12u18`; empty for a plain one. */
  readonly package: string;
  /** What can be negotiated: `oob`. */
  readonly capabilities: readonly string[];
}

export type QmpMessage =
  | { readonly kind: 'greeting'; readonly greeting: QmpGreeting }
  | { readonly kind: 'success'; readonly id: unknown; readonly value: unknown }
  | { readonly kind: 'failure'; readonly id: unknown; readonly errorClass: string; readonly desc: string }
  | { readonly kind: 'event'; readonly event: QmpEvent };

type JsonObject = Record<string, unknown>;

/**
 * Reads one line. `id` is `undefined` for a reply without one.
 *
 * @throws {QmpProtocolError} for anything that is not exactly one of the four messages
 */
export function parseMessage(line: string): QmpMessage {
  const message = parseObject(line);
  const kinds = ['QMP', 'return', 'error', 'event'].filter((key) => Object.hasOwn(message, key));
  if (kinds.length !== 1) throw malformed('is neither a greeting, a reply nor an event', line);
  switch (kinds[0]) {
    case 'QMP':
      return { kind: 'greeting', greeting: readGreeting(message.QMP, line) };
    case 'return':
      return { kind: 'success', id: message.id, value: message.return };
    case 'error': {
      const { error } = message;
      if (!isObject(error) || typeof error.class !== 'string' || typeof error.desc !== 'string') {
        throw malformed('is an error without a class and a description', line);
      }
      return { kind: 'failure', id: message.id, errorClass: error.class, desc: error.desc };
    }
    default:
      return { kind: 'event', event: readEvent(message, line) };
  }
}

function parseObject(line: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw malformed('is not JSON', line, cause);
  }
  if (!isObject(value)) throw malformed('is not a JSON object', line);
  return value;
}

function readGreeting(qmp: unknown, line: string): QmpGreeting {
  const version = isObject(qmp) && isObject(qmp.version) ? qmp.version : {};
  const qemu = isObject(version.qemu) ? version.qemu : {};
  const { major, minor, micro } = qemu;
  const capabilities = isObject(qmp) ? qmp.capabilities : undefined;
  if (!isNumber(major) || !isNumber(minor) || !isNumber(micro) || !Array.isArray(capabilities)) {
    throw malformed('is a greeting without a version or capabilities', line);
  }
  return {
    version: { major, minor, micro },
    package: typeof version.package === 'string' ? version.package : '',
    // A capability may one day be something else than a name: what cannot be named cannot be enabled.
    capabilities: capabilities.filter((capability) => typeof capability === 'string'),
  };
}

function readEvent({ event, data = {}, timestamp }: JsonObject, line: string): QmpEvent {
  const { seconds, microseconds } = isObject(timestamp) ? timestamp : {};
  if (typeof event !== 'string' || !isObject(data) || !isNumber(seconds) || !isNumber(microseconds)) {
    throw malformed('is an event without a name, data or time', line);
  }
  return { event, data, timestamp: { seconds, microseconds } };
}

function malformed(what: string, line: string, cause?: unknown): QmpProtocolError {
  const shown = line.length > 200 ? `${line.slice(0, 200)}…` : line;
  return new QmpProtocolError(`the peer sent a line that ${what}: ${JSON.stringify(shown)}`, cause);
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isNumber(value: unknown): value is number {
  return typeof value === 'number';
}
