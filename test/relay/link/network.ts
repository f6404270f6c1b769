/** A network between two relays that can be cut, stall and heal: a proxy on loopback. */
import { once } from 'node:events';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { host } from '../peers.js';

export class Network implements AsyncDisposable {
  readonly port: number;
  connects = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #isStalled = false;
  #isDeafened = false;
  #isDown = false;

  private constructor(server: Server, targetPort: number) {
    this.#server = server;
    this.port = (server.address() as { port: number }).port;
    server.on('connection', (near) => {
      this.connects++;
      const far = createConnection({ host, port: targetPort, noDelay: true });
      near.setNoDelay(true);
      this.#join(near, far, () => this.#isStalled);
      this.#join(far, near, () => this.#isStalled || this.#isDeafened);
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
    this.#isStalled = true;
  }

  /** From now on nothing comes back any more. */
  deafen(): void {
    this.#isDeafened = true;
  }

  /** The network is whole again. A connection over which something was lost meanwhile stays dead, and nobody is told. */
  heal(): void {
    this.#isStalled = false;
    this.#isDeafened = false;
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

  #join(from: Socket, to: Socket, isStalled: () => boolean): void {
    let isDead = false;
    this.#sockets.add(from);
    from.on('error', () => {});
    from.on('close', () => {
      this.#sockets.delete(from);
      if (!isDead && !isStalled()) to.destroy();
    });
    from.on('data', (chunk: Buffer) => {
      if (isStalled()) isDead = true;
      if (!isDead && !to.destroyed && !to.write(chunk)) {
        from.pause();
        to.once('drain', () => from.resume());
      }
    });
  }
}
