/** An agent that answers what the test tells it to: for what a real one does not do. */
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { encodeFrame, frameType } from '../../guest-agent/protocol.js';
import { helloPayload } from './payloads.js';

export interface Command {
  type: number;
  session: Buffer;
  request: number;
  payload: Buffer;
}

export class ScriptedAgent implements AsyncDisposable {
  readonly path: string;
  readonly commands: Command[] = [];
  readonly #server = createServer((socket) => this.#serve(socket));
  readonly #answer: (command: Command, agent: ScriptedAgent) => void;
  #socket: Socket | undefined;
  #rest = Buffer.alloc(0);

  private constructor(directory: string, answer: (command: Command, agent: ScriptedAgent) => void) {
    this.path = join(directory, 'agent');
    this.#answer = answer;
  }

  static async start(
    directory: string,
    answer: (command: Command, agent: ScriptedAgent) => void,
  ): Promise<ScriptedAgent> {
    const agent = new ScriptedAgent(directory, answer);
    agent.#server.listen(agent.path);
    await once(agent.#server, 'listening');
    return agent;
  }

  /** Answers a command with a frame. */
  reply(to: Command, type: number, payload: Uint8Array = new Uint8Array(0)): void {
    this.write(encodeFrame(type, to.session, to.request, payload));
  }

  greet(to: Command): void {
    this.reply(to, frameType.helloAck, helloPayload());
  }

  write(bytes: Uint8Array): void {
    this.#socket?.write(bytes);
  }

  hangUp(): void {
    this.#socket?.destroy();
  }

  #serve(socket: Socket): void {
    this.#socket = socket;
    socket.on('error', () => {});
    socket.on('data', (bytes: Buffer) => {
      this.#rest = Buffer.concat([this.#rest, bytes]);
      while (this.#rest.length >= 28) {
        const length = this.#rest.readUInt32LE(20);
        const frame = this.#rest.subarray(0, 28 + length);
        if (crc32(frame.subarray(28), crc32(frame.subarray(0, 24))) !== frame.readUInt32LE(24)) throw new Error('crc');
        this.#rest = this.#rest.subarray(28 + length);
        const command: Command = {
          type: frame.readUInt8(5),
          session: frame.subarray(8, 16),
          request: frame.readUInt32LE(16),
          payload: frame.subarray(28),
        };
        this.commands.push(command);
        this.#answer(command, this);
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket?.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }
}
