/** A network between two relays that can be cut, stall, become slow and heal: a proxy on loopback. */
import { once } from 'node:events';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { host } from '../peers.js';

export class Network implements AsyncDisposable {
  readonly port: number;
  /** Each way; what is sent from now on. */
  delayMs = 0;
  connects = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #held: (() => void)[] | null = null;
  #isDown = false;

  private constructor(server: Server, targetPort: number) {
    this.#server = server;
    this.port = (server.address() as { port: number }).port;
    server.on('connection', (near) => {
      this.connects++;
      const far = createConnection({ host, port: targetPort, noDelay: true });
      near.setNoDelay(true);
      this.#join(near, far);
      this.#join(far, near);
      if (this.#isDown) near.resetAndDestroy();
    });
  }

  static async to(targetPort: number): Promise<Network> {
    const server = createServer().listen(0, host);
    await once(server, 'listening');
    return new Network(server, targetPort);
  }

  /** Of those made to it. */
  get openConnections(): number {
    return [...this.#sockets].filter(({ localPort }) => localPort === this.port).length;
  }

  /** Ends all connections there are. */
  cut(how: 'destroy' | 'resetAndDestroy' = 'destroy'): void {
    for (const socket of this.#sockets) socket[how]();
  }

  /** Ends one connection. */
  cutOne(): void {
    const [socket] = this.#sockets;
    socket?.destroy();
  }

  /** From now on nothing arrives any more, and nobody is told. */
  stall(): void {
    this.#held ??= [];
  }

  /** As if a router dropped its packets for good: what was held is lost with its connections, without a word. */
  heal(): void {
    this.#held = null;
    this.#isDown = false;
  }

  /** No new connections, either. */
  down(): void {
    this.#isDown = true;
    this.cut();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #join(from: Socket, to: Socket): void {
    let isDead = false;
    this.#sockets.add(from);
    from.on('error', () => {});
    from.on('close', () => {
      this.#sockets.delete(from);
      this.#deliver(isDead, () => to.destroy());
    });
    from.on('data', (chunk: Buffer) => {
      // A connection that was stalled stays dead, even after the network is whole again.
      if (this.#held !== null) isDead = true;
      this.#deliver(isDead, () => {
        if (!to.destroyed && !to.write(chunk)) {
          from.pause();
          to.once('drain', () => from.resume());
        }
      });
    });
  }

  #deliver(isDead: boolean, action: () => void): void {
    if (isDead || this.#held !== null) return;
    if (this.delayMs === 0) action();
    else setTimeout(action, this.delayMs);
  }
}
