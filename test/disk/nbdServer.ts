/** What an NBD server says, to be sent by a scripted one. */
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Images } from './images.js';

export function be(bytes: 2 | 4 | 8, value: number): Buffer<ArrayBuffer> {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64BE(BigInt(value));
  return buffer.subarray(8 - bytes);
}

const hex = (digits: string) => Buffer.from(digits, 'hex');
const GO = 7;

export const greeting = (flags = 3) => Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), be(2, flags)]);

export function optionReply(option: number, type: number, data = Buffer.alloc(0)): Buffer {
  return Buffer.concat([hex('0003e889045565a9'), be(4, option), be(4, type), be(4, data.length), data]);
}

export const exportInfo = (sizeBytes: number) =>
  optionReply(GO, 3, Buffer.concat([be(2, 0), be(8, sizeBytes), be(2, 3)]));
export const blockSizes = (min: number, preferred: number, max: number) =>
  optionReply(GO, 3, Buffer.concat([be(2, 3), be(4, min), be(4, preferred), be(4, max)]));

/** A whole negotiation, as a server may send it without waiting for the client. */
export function negotiation(sizeBytes: number, { structured = true, min = 1, max = 2 ** 25 } = {}): Buffer {
  return Buffer.concat([
    greeting(),
    structured ? optionReply(8, 1) : optionReply(8, 2 ** 31 + 1, Buffer.from('no')),
    exportInfo(sizeBytes),
    blockSizes(min, Math.max(min, 4096), max),
    optionReply(GO, 1),
  ]);
}

export function simpleReply(cookie: number, data: Buffer, error = 0): Buffer {
  return Buffer.concat([hex('67446698'), be(4, error), be(8, cookie), data]);
}

export function chunk(cookie: number, type: number, payload: Buffer, isLast = false): Buffer {
  return Buffer.concat([
    hex('668e33ef'),
    be(2, isLast ? 1 : 0),
    be(2, type),
    be(8, cookie),
    be(4, payload.length),
    payload,
  ]);
}

export const dataChunk = (cookie: number, offset: number, data: Buffer, isLast = false) =>
  chunk(cookie, 1, Buffer.concat([be(8, offset), data]), isLast);
export const holeChunk = (cookie: number, offset: number, lengthBytes: number, isLast = false) =>
  chunk(cookie, 2, Buffer.concat([be(8, offset), be(4, lengthBytes)]), isLast);
export const errorChunk = (cookie: number, message: string, isLast = false, offset?: number) =>
  chunk(
    cookie,
    2 ** 15 + (offset === undefined ? 1 : 2),
    Buffer.concat([
      be(4, 5),
      be(2, message.length),
      Buffer.from(message),
      offset === undefined ? Buffer.alloc(0) : be(8, offset),
    ]),
    isLast,
  );

export interface ReadRequest {
  readonly cookie: number;
  readonly offset: number;
  readonly lengthBytes: number;
}

/** A server whose every connection is the script's. */
export class ScriptedServer implements AsyncDisposable {
  readonly path: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(path: string, script: (socket: Socket) => void) {
    this.path = path;
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => {});
      script(socket);
    }).listen(path);
  }

  static #count = 0;

  static async start(images: Images, script: (socket: Socket) => void): Promise<ScriptedServer> {
    const server = new ScriptedServer(join(images.folder, `scripted-${ScriptedServer.#count++}`), script);
    await new Promise((resolve) => server.#server.once('listening', resolve));
    return server;
  }

  /** Negotiates as servers do, and answers each read with what `answer` says; `null` hangs up. */
  static reading(
    images: Images,
    sizeBytes: number,
    answer: (request: ReadRequest) => Buffer | null,
    options: Parameters<typeof negotiation>[1] = {},
  ): Promise<ScriptedServer> {
    return ScriptedServer.start(images, (socket) => {
      socket.write(negotiation(sizeBytes, options));
      let received = Buffer.alloc(0);
      socket.on('data', (bytes) => {
        received = Buffer.concat([received, bytes]);
        for (let at = received.indexOf(hex('25609513')); at >= 0 && received.length >= at + 28; ) {
          const request = received.subarray(at, at + 28);
          received = received.subarray(at + 28);
          at = received.indexOf(hex('25609513'));
          if (request.readUInt16BE(6) !== 0) return socket.end();
          const reply = answer({
            cookie: Number(request.readBigUInt64BE(8)),
            offset: Number(request.readBigUInt64BE(16)),
            lengthBytes: request.readUInt32BE(24),
          });
          if (reply === null) socket.end();
          else socket.write(reply);
        }
      });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
