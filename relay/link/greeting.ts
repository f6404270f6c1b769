/**
 * What two relays say to each other on a connection before any frame of the migration.
 *
 *   hello   = JSON { protocol: 'vmmig-link', version, migrationId, connection, connections, resume? }
 *   resume  = { session, attempt, received }: the link that was cut goes on (see durableLink.ts)
 *   welcome = JSON { version, received? }
 *   refuse  = JSON { message, unknownSession? }
 */
import type { TLSSocket } from 'node:tls';
import { RelayError } from '../errors.js';
import { hungUp, type LinkCredentials } from './connection.js';
import { encodeFrameHeader, type Frame, FrameDecoder, frameType, linkVersion } from './frames.js';
import { peerText } from './peerText.js';

export const maxConnections = 16;

export interface Hello {
  readonly protocol: string;
  readonly version: number;
  readonly migrationId: string;
  readonly connection: number;
  readonly connections: number;
  readonly resume?: Resume;
}

/** Said when a link that both sides still know is to go on over new connections. */
export interface Resume {
  /** Hexadecimal; see `sessionOf`. */
  readonly session: string;
  /** Counts up; a later attempt ends the earlier ones. */
  readonly attempt: number;
  /** The frames of this connection's number that the caller has received so far. */
  readonly received: number;
}

/** The other relay does not know the session that was to be resumed: it was started anew, or belongs to a newer link. */
export class UnknownSessionError extends RelayError {
  constructor(message: string) {
    super('VMMIG_LINK_LOST', message);
  }
}

/** @returns why a peer that said this cannot be spoken with, or null */
export function whyNot(frame: Frame, hello: Hello, credentials: LinkCredentials): string | null {
  if (frame.type !== frameType.hello || hello.protocol !== 'vmmig-link') return 'the peer is not a vmmig relay';
  if (hello.version !== linkVersion)
    return `this relay speaks link version ${linkVersion}, the other one ${peerText(hello.version)}: install the same vmmig on both hosts`;
  if (hello.migrationId !== credentials.migrationId) return 'the peer belongs to another migration';
  const { connection, connections, resume } = hello;
  if (!Number.isInteger(connections) || connections < 1 || connections > maxConnections)
    return `a link has 1 to ${maxConnections} connections`;
  if (!Number.isInteger(connection) || connection < 0 || connection >= connections) return 'no such connection';
  if (resume !== undefined && !isSound(resume)) return 'the peer cannot say what it resumes';
  return null;
}

function isSound(resume: Resume): boolean {
  return (
    typeof resume === 'object' &&
    resume !== null &&
    typeof resume.session === 'string' &&
    Number.isSafeInteger(resume.attempt) &&
    Number.isSafeInteger(resume.received)
  );
}

/** Says why not, and ends the connection when the peer has had time to read it. */
export async function refuse(tls: TLSSocket, message: string, unknownSession: boolean): Promise<void> {
  sendJson(tls, frameType.refuse, unknownSession ? { message, unknownSession } : { message });
  tls
    .on('error', () => {})
    .resume()
    .end();
  await hungUp(tls);
}

/** Reads exactly one frame; what follows it goes back into the socket, which is left paused. */
export function firstFrame(tls: TLSSocket, timeoutMs: number): Promise<Frame> {
  return new Promise((resolve, reject) => {
    const decoder = new FrameDecoder();
    const finish = (error: RelayError | null, frame?: Frame) => {
      clearTimeout(timer);
      tls.off('data', onData).off('close', onClose).off('error', onClose);
      tls.pause();
      const rest = decoder.takeRest();
      if (rest.length > 0) tls.unshift(rest);
      if (frame === undefined) reject(error);
      else resolve(frame);
    };
    const onClose = () => finish(new RelayError('VMMIG_LINK_LOST', 'the other relay hung up during the greeting'));
    const onData = (chunk: Buffer) => {
      try {
        for (const frame of decoder.feed(chunk)) return finish(null, frame);
      } catch (thrown) {
        finish(thrown as RelayError);
      }
    };
    const timer = setTimeout(
      () => finish(new RelayError('VMMIG_LINK_CONNECT', 'the other relay did not greet in time')),
      timeoutMs,
    );
    tls.on('data', onData).on('close', onClose).on('error', onClose);
    tls.resume();
  });
}

export function parseGreeting(frame: Frame): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(frame.payload.toString('utf8'));
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  } catch {
    // said below
  }
  throw new RelayError('VMMIG_LINK_PROTOCOL', 'the other relay sent a malformed greeting');
}

export function sendJson(tls: TLSSocket, type: number, value: object): void {
  const payload = Buffer.from(JSON.stringify(value));
  tls.write(Buffer.concat([encodeFrameHeader(type, 0, payload.length), payload]));
}
