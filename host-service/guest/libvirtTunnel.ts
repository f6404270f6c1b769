/**
 * How `virsh migrate` on the source reaches the destination's daemon: a unix socket here, one authenticated connection
 * between the hosts, the daemon's own socket there. So libvirt needs no way between the hosts of its own, no keys and no
 * open port, and what a connection that breaks means is ours to say.
 *
 *     virsh ─ RUNDIR/ID/libvirt ─ source's service ══ TLS with the migration's key ══ destination's service ─ daemon
 */
import { access, rm } from 'node:fs/promises';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import { LibvirtError } from '../../hypervisor/index.js';
import { acceptConnection, type Endpoint, type LinkCredentials, openConnection } from '../../relay/link/connection.js';

const connectTimeoutMs = 10_000;
/** Peers that have connected and not shown the key yet. */
const maxStrangers = 8;
const lastWordsMs = 8_000;
/** In libvirt's order: one daemon for everything, or one for QEMU. */
const daemonSockets = ['/run/libvirt/libvirt-sock', '/run/libvirt/virtqemud-sock', '/var/run/libvirt/libvirt-sock'];

/** The source's end. */
export class TunnelEntrance implements AsyncDisposable {
  /** Resolves when the way to the destination's daemon is lost, or was closed there. */
  readonly lost: Promise<void>;
  readonly path: string;
  readonly #server: Server;
  #local: Socket | null = null;
  #remote: TLSSocket | null = null;
  #tellLost!: () => void;

  private constructor(path: string, server: Server) {
    this.path = path;
    this.#server = server;
    this.lost = new Promise((resolve) => {
      this.#tellLost = resolve;
    });
  }

  /**
   * Connects to the destination at once, and waits for one client on `path`.
   * @param entered - called with the client's connection, before anything is read from it
   * @throws RelayError when the destination cannot be reached
   */
  static async open(
    path: string,
    { endpoint, credentials }: { readonly endpoint: Endpoint; readonly credentials: LinkCredentials },
    entered: (client: Socket) => void,
  ): Promise<TunnelEntrance> {
    const server = createServer({ pauseOnConnect: true }, (client) => own.#enter(client, entered));
    const own = new TunnelEntrance(path, server);
    own.#remote = (await openConnection(endpoint, credentials, connectTimeoutMs)).tls;
    own.#remote.pause();
    own.#remote.once('close', () => own.#tellLost());
    const previousMask = process.umask(0o177);
    try {
      await listenOn(server, { path });
    } catch (thrown) {
      own.#remote.destroy();
      throw thrown;
    } finally {
      process.umask(previousMask);
    }
    return own;
  }

  /** Hangs up on the client, which takes it for a no. */
  cut(): void {
    this.#local?.destroy();
    this.#remote?.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await close(this.#server);
    await rm(this.path, { force: true });
  }

  #enter(client: Socket, entered: (client: Socket) => void): void {
    if (this.#local !== null) return void client.destroy();
    this.#local = client;
    client.on('error', () => {});
    entered(client);
    const remote = this.#remote!;
    client.pipe(remote);
    // Not the other way: that the destination has hung up is not passed on, see `lost`.
    remote.pipe(client, { end: false });
  }
}

/** The destination's end. */
export class TunnelExit implements AsyncDisposable {
  readonly port: number;
  readonly #server: Server;
  readonly #sockets: Set<Socket>;
  /** Resolves when the source has hung up, and nobody else may come. */
  readonly #closed: Promise<void>;

  private constructor(server: Server, sockets: Set<Socket>, closed: Promise<void>) {
    this.#server = server;
    this.#sockets = sockets;
    this.#closed = closed;
    this.port = (server.address() as { port: number }).port;
  }

  /** @throws LibvirtError VMMIG_LIBVIRT_UNREACHABLE when there is no daemon, or no port is free */
  static async open(credentials: LinkCredentials, ports: readonly [number, number] | null): Promise<TunnelExit> {
    const daemonPath = await findDaemon();
    const sockets = new Set<Socket>();
    let isTaken = false;
    const server = createServer((socket) => {
      if (isTaken || sockets.size >= maxStrangers) return void socket.destroy();
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
      acceptConnection(socket, credentials, connectTimeoutMs).then(
        ({ tls }) => {
          if (isTaken) return void tls.destroy();
          isTaken = true;
          server.close();
          join(tls, daemonPath, sockets);
        },
        () => {},
      );
    });
    await listenWithin(server, ports);
    const closed = new Promise<void>((resolve) => server.once('close', resolve));
    return new TunnelExit(server, sockets, closed);
  }

  /** What libvirt has still to say is waited for, and not for long. */
  async [Symbol.asyncDispose](): Promise<void> {
    const isClosed = close(this.#server);
    await Promise.race([this.#closed, delay(lastWordsMs, undefined, { ref: false })]);
    for (const socket of this.#sockets) socket.destroy();
    await isClosed;
  }
}

function join(tls: TLSSocket, daemonPath: string, sockets: Set<Socket>): void {
  const daemon = createConnection({ path: daemonPath });
  sockets.add(daemon);
  daemon.once('close', () => sockets.delete(daemon));
  daemon.on('error', () => tls.destroy());
  tls.once('close', () => daemon.destroy());
  daemon.once('close', () => tls.end());
  daemon.pipe(tls);
  tls.pipe(daemon);
}

async function findDaemon(): Promise<string> {
  for (const path of daemonSockets) {
    const isThere = await access(path).then(
      () => true,
      () => false,
    );
    if (isThere) return path;
  }
  throw new LibvirtError('VMMIG_LIBVIRT_UNREACHABLE', `libvirt is not running here: there is no ${daemonSockets[0]}`);
}

async function listenWithin(server: Server, ports: readonly [number, number] | null): Promise<void> {
  const [first, last] = ports ?? [0, 0];
  for (let port = first; port <= last; port++) {
    try {
      return await listenOn(server, { port });
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw thrown;
    }
  }
  throw new LibvirtError('VMMIG_LIBVIRT_UNREACHABLE', `no port between ${first} and ${last} is free`);
}

function listenOn(server: Server, where: { path: string } | { port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(where, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

async function close(server: Server): Promise<void> {
  if (server.listening) await new Promise((resolve) => server.close(resolve));
}
