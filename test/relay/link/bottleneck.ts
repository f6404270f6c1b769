/** A line between two relays: all connections share its rate and its queue, and each chunk travels for as long. */
import { once } from 'node:events';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { host } from '../peers.js';

export class Bottleneck implements AsyncDisposable {
  readonly port: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  readonly #underWay: Record<'out' | 'back', { atMs: number; to: Socket; chunk: Buffer }[]> = { out: [], back: [] };
  readonly #timer = setInterval(() => {
    for (const queue of Object.values(this.#underWay))
      while (queue.length > 0 && queue[0]!.atMs <= performance.now()) {
        const { to, chunk } = queue.shift()!;
        to.write(chunk);
      }
  }, 1);

  private constructor(server: Server, targetPort: number, bytesPerMs: number, delayMs: number) {
    this.#server = server;
    this.port = (server.address() as { port: number }).port;
    const idleAtMs = { out: 0, back: 0 };
    const carry = (from: Socket, to: Socket, way: 'out' | 'back') => {
      this.#sockets.add(from);
      from.on('error', () => {});
      from.on('close', () => to.destroy());
      from.on('data', (chunk: Buffer) => {
        const nowMs = performance.now();
        idleAtMs[way] = Math.max(idleAtMs[way], nowMs) + chunk.length / bytesPerMs;
        this.#underWay[way].push({ atMs: idleAtMs[way] + delayMs, to, chunk });
      });
    };
    server.on('connection', (near) => {
      const far = createConnection({ host, port: targetPort, noDelay: true });
      near.setNoDelay(true);
      carry(near, far, 'out');
      carry(far, near, 'back');
    });
  }

  static async to(targetPort: number, bytesPerMs: number, delayMs: number): Promise<Bottleneck> {
    const server = createServer().listen(0, host);
    await once(server, 'listening');
    return new Bottleneck(server, targetPort, bytesPerMs, delayMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
