/**
 * libvirt's remote protocol, as far as the end of a migration is concerned: what `virsh` and a daemon say to each other
 * over a connection that vmmig carries. No I/O. (docs: libvirt.org/kbase/internals/rpc.html; the programs are in
 * libvirt's remote_protocol.x and virkeepaliveprotocol.x, which never change.)
 *
 *     be32 length, its own included   be32 program   be32 version   be32 procedure   be32 type   be32 serial   be32 status
 *     payload in XDR
 *
 *     AUTH_LIST                       nothing                         -> be32 count  be32…
 *     CONNECT_SUPPORTS_FEATURE        be32 feature                    -> be32 whether
 *     CONNECT_OPEN                    optional string URI  be32 flags -> nothing
 *     CONNECT_CLOSE                   nothing                         -> nothing
 *     DOMAIN_MIGRATE_PREPARE3_PARAMS  …  be32 flags                   -> opaque cookie  string URI
 *     DOMAIN_MIGRATE_FINISH3_PARAMS   …  be32 flags  be32 cancelled   -> string name  uuid  be32 id  opaque cookie
 *     keepalive PING                  nothing            -> PONG, a message of its own
 */

const headerBytes = 28;
/** VIR_NET_MESSAGE_MAX, and the length itself. */
const maxMessageBytes = 33_554_432 + 4;

const remoteProgram = 0x20008086;
const keepaliveProgram = 0x6b656570;
export const remoteProcedure = { open: 1, supportsFeature: 60, authList: 66 } as const;
const procedures = { close: 2, prepare: 303, finish: 306, ping: 1, pong: 2 } as const;
/** VIR_MIGRATE_POSTCOPY */
const postcopyFlag = 1 << 15;
const types = { call: 0, reply: 1, message: 2 } as const;

export interface RemoteMessage {
  /** As it came. */
  readonly raw: Buffer;
  readonly kind:
    | 'ping'
    /** The destination is asked to start a QEMU that waits for the guest. */
    | 'prepare'
    /** The destination is asked to run the guest: the source's libvirt has let go of it. */
    | 'finish'
    | 'call'
    | 'answer'
    | 'other';
  readonly program: number;
  readonly version: number;
  readonly procedure: number;
  readonly type: number;
  readonly serial: number;
  readonly payload: Buffer;
  /** Of an answer: it is no error. */
  readonly isOk: boolean;
}

/** Not what libvirt says: another protocol, or a connection that is encrypted within. */
export class RemoteProtocolError extends Error {
  override readonly name = 'RemoteProtocolError';
}

/** Bytes of one direction in, whole messages out. */
export class RemoteMessages {
  #rest: Buffer = Buffer.alloc(0);

  /** @throws RemoteProtocolError */
  feed(bytes: Buffer): RemoteMessage[] {
    this.#rest = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    const messages: RemoteMessage[] = [];
    while (this.#rest.length >= 4) {
      const lengthBytes = this.#rest.readUInt32BE(0);
      if (lengthBytes < headerBytes || lengthBytes > maxMessageBytes)
        throw new RemoteProtocolError(`a message of ${lengthBytes} bytes`);
      if (this.#rest.length < lengthBytes) break;
      messages.push(parse(Buffer.from(this.#rest.subarray(0, lengthBytes))));
      this.#rest = this.#rest.subarray(lengthBytes);
    }
    return messages;
  }
}

function parse(raw: Buffer): RemoteMessage {
  const [program, version, procedure, type, serial, status] = [4, 8, 12, 16, 20, 24].map((at) =>
    raw.readUInt32BE(at),
  ) as [number, number, number, number, number, number];
  const kind = kindOf(raw, program, procedure, type);
  const payload = raw.subarray(headerBytes);
  return { raw, kind, program, version, procedure, type, serial, payload, isOk: status === 0 };
}

function kindOf(raw: Buffer, program: number, procedure: number, type: number): RemoteMessage['kind'] {
  if (program === keepaliveProgram) return procedure === procedures.ping ? 'ping' : 'other';
  if (type === types.reply) return 'answer';
  if (type !== types.call) return 'other';
  if (program !== remoteProgram || raw.length < headerBytes + 8) return 'call';
  if (procedure === procedures.prepare) return 'prepare';
  // With `cancelled` it is the opposite: the destination is to forget the guest.
  return procedure === procedures.finish && raw.readInt32BE(raw.length - 4) === 0 ? 'finish' : 'call';
}

/** A call to prepare or to finish, as of a migration by post-copy. */
export function withPostcopy({ raw, kind }: RemoteMessage): Buffer {
  if (kind !== 'prepare' && kind !== 'finish') return raw;
  const changed = Buffer.from(raw);
  const at = raw.length - (kind === 'prepare' ? 4 : 8);
  changed.writeUInt32BE((raw.readUInt32BE(at) | postcopyFlag) >>> 0, at);
  return changed;
}

/** What a client answers to a daemon's ping; said unasked it does no harm, and counts as a sign of life. */
export function pong(): Buffer {
  const message = { program: keepaliveProgram, version: 1, procedure: procedures.pong, serial: 0 };
  return encode(message, types.message, Buffer.alloc(0));
}

export function encodeCall(procedure: number, serial: number, payload: Buffer): Buffer {
  return encode({ program: remoteProgram, version: 1, procedure, serial }, types.call, payload);
}

/** That a call went well. @param payload - what is to be returned; nothing, when left out */
export function encodeReply(call: RemoteMessage, payload: Buffer = Buffer.alloc(0)): Buffer {
  return encode(call, types.reply, payload);
}

/** That the guest runs at the destination. @param domain - there; its UUID in the usual notation */
export function finishReply(call: RemoteMessage, domain: { readonly name: string; readonly uuid: string }): Buffer {
  const name = Buffer.from(domain.name);
  const text = Buffer.alloc(4 + Math.ceil(name.length / 4) * 4);
  text.writeUInt32BE(name.length, 0);
  name.copy(text, 4);
  const uuid = Buffer.from(domain.uuid.replaceAll('-', ''), 'hex');
  if (uuid.length !== 16) throw new RemoteProtocolError(`${domain.uuid} is no UUID`);
  const [idOfARunningDomain, noCookie] = [Buffer.from([0, 0, 0, 1]), Buffer.alloc(4)];
  return encodeReply(call, Buffer.concat([text, uuid, idOfARunningDomain, noCookie]));
}

function encode(
  to: Pick<RemoteMessage, 'program' | 'version' | 'procedure' | 'serial'>,
  type: number,
  payload: Buffer,
): Buffer {
  const message = Buffer.alloc(headerBytes + payload.length);
  const { program, version, procedure, serial } = to;
  for (const [index, word] of [message.length, program, version, procedure, type, serial, 0].entries())
    message.writeUInt32BE(word, index * 4);
  payload.copy(message, headerBytes);
  return message;
}
