/**
 * What qemu-guest-agent answers, without any I/O: bytes in, replies out.
 *
 *     reply    JSON object with `return` or `error`, LF
 *     delimited reply (guest-sync-delimited only)   0xFF, then a reply
 *
 * Replies have no ids. What an earlier client, or a command that nobody waited for, left on its way is told from what we
 * asked for by guest-sync-delimited: until its reply with our number has come, everything is dropped. 0xFF is in no UTF-8
 * text, so it begins a new line wherever it stands, also in the rest of a reply that was cut off.
 */
import { AgentError } from '../errors.js';

/** The longest we ask for is a quarter of this. */
const MAX_LINE_BYTES = 2 * 1024 * 1024;
const MAX_PARTS = 1000;
const LF = 0x0a;
const DELIMITER = 0xff;

export type QgaReply = { value: unknown } | { error: string };

export class QgaReplies {
  #parts: Buffer[] = [];
  #length = 0;
  #delimited = false;
  /** The number that has to come back before anything counts. */
  #awaited: number | null = null;

  /** Drops everything up to the reply to a guest-sync-delimited with this number. */
  awaitSync(id: number): void {
    this.#awaited = id;
  }

  /**
   * Takes the next bytes and calls `onReply` for each reply that counts, that to the sync included.
   * @throws AgentError `VMMIG_AGENT_PROTOCOL`; nothing is of use any more until the next sync
   */
  feed(bytes: Buffer, onReply: (reply: QgaReply) => void): void {
    let start = 0;
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at];
      if (byte === DELIMITER) {
        this.#clear();
        this.#delimited = true;
        start = at + 1;
      } else if (byte === LF) {
        this.#keep(bytes.subarray(start, at));
        start = at + 1;
        this.#endLine(onReply);
      }
    }
    this.#keep(bytes.subarray(start));
  }

  #keep(bytes: Buffer): void {
    this.#length += bytes.length;
    // A line in single bytes is not to take many times its memory.
    if (this.#parts.length === MAX_PARTS) this.#parts = [Buffer.concat(this.#parts)];
    if (this.#length <= MAX_LINE_BYTES) this.#parts.push(Buffer.from(bytes));
    else if (this.#awaited !== null) this.#parts = [];
    else throw protocolError(`a reply of more than ${MAX_LINE_BYTES} bytes`);
  }

  #clear(): void {
    this.#parts = [];
    this.#length = 0;
    this.#delimited = false;
  }

  #endLine(onReply: (reply: QgaReply) => void): void {
    const delimited = this.#delimited;
    const line = this.#length > MAX_LINE_BYTES ? '' : Buffer.concat(this.#parts).toString('utf8').trim();
    this.#clear();
    if (this.#awaited === null) {
      if (line !== '') onReply(parseReply(line));
    } else if (delimited && isReturnOf(line, this.#awaited)) {
      this.#awaited = null;
      onReply({ value: null });
    }
  }
}

function isReturnOf(line: string, id: number): boolean {
  try {
    const reply = parseReply(line);
    return 'value' in reply && reply.value === id;
  } catch {
    return false;
  }
}

function parseReply(line: string): QgaReply {
  let reply: unknown;
  try {
    reply = JSON.parse(line);
  } catch {
    throw protocolError('no JSON');
  }
  if (typeof reply === 'object' && reply !== null) {
    if ('return' in reply) return { value: reply.return };
    if ('error' in reply) return { error: describe(reply.error) };
  }
  throw protocolError('neither a result nor an error');
}

/** `{"class": …, "desc": …}`: the text is for people and comes from the guest. */
function describe(error: unknown): string {
  const desc = typeof error === 'object' && error !== null && 'desc' in error ? error.desc : null;
  return printable(typeof desc === 'string' ? desc : 'no reason given', 300);
}

/** A text from the guest, in a shape that can be shown. */
export function printable(text: string, maxLength: number): string {
  return text
    .slice(0, maxLength)
    .replaceAll(/[^\p{L}\p{N}\p{P}\p{S} ]+/gu, ' ')
    .trim();
}

function protocolError(what: string): AgentError {
  return new AgentError('VMMIG_AGENT_PROTOCOL', `qemu-guest-agent sent something invalid: ${what}`);
}
