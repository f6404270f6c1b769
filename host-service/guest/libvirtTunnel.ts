/**
 * How `virsh migrate` on the source reaches the destination's daemon: a unix socket here, one authenticated connection
 * between the hosts, the daemon's own socket there. So libvirt needs no way between the hosts of its own, no keys and no
 * open port, and what a connection that breaks means is ours to say.
 *
 *     virsh ─ RUNDIR/ID/libvirt ─ source's service ══ TLS with the migration's key ══ destination's service ─ daemon
 *
 * How what is said there begins is known to both ends: see libvirtOpening.ts. For a switch they follow all of it: see
 * libvirtPreparation.ts and libvirtFinish.ts.
 */
import { access, rm } from 'node:fs/promises';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import { LibvirtError } from '../../hypervisor/index.js';
import { acceptConnection, type Endpoint, type LinkCredentials, openConnection } from '../../relay/link/connection.js';
import { FinishAtDestination, FinishAtSource, follow } from './libvirtFinish.js';
import { AnsweredOpening, opensAsUsual, PacedOpening } from './libvirtOpening.js';

const connectTimeoutMs = 10_000;
/** Peers that have connected and not shown the key yet. */
const maxStrangers = 8;
const lastWordsMs = 8_000;
/** In libvirt's order: one daemon for everything, or one for QEMU. */
const daemonSockets = ['/run/libvirt/libvirt-sock', '/run/libvirt/virtqemud-sock', '/var/run/libvirt/libvirt-sock'];

/** What is said there is followed. */
export interface SwitchThrough {
  /** The source's QEMU leaves the guest's memory out of its stream. */
  readonly isInFiles: boolean;
}

export interface TunnelWay {
  readonly endpoint: Endpoint;
  readonly credentials: LinkCredentials;
  /** The destination's daemon begins as all do: virsh need not wait for its first answers. */
  readonly opensAsUsual: boolean;
  /** Null: what is said there need not be followed. */
  readonly switching: SwitchThrough | null;
}

/** The source's end. */
export class TunnelEntrance implements AsyncDisposable {
  /** Resolves when there is a way to the destination's daemon; rejects with a RelayError when there is none. */
  reached: Promise<void> = Promise.resolve();
  /** Resolves when it is lost, or was closed there. */
  readonly lost: Promise<void>;
  readonly path: string;
  readonly #server: Server;
  #local: Socket | null = null;
  #remote: TLSSocket | null = null;
  #isCut = false;
  #tellLost!: () => void;
  readonly #way: Pick<TunnelWay, 'switching' | 'opensAsUsual'>;
  #finish: FinishAtSource | null = null;
  #tellAsked!: () => void;
  /** Of a switch: resolves when the daemon here has let go of the guest. */
  readonly asked: Promise<void>;
  #tellReady!: () => void;
  /** Of a switch of a guest that is kept in files: resolves when the daemon there is ready for it. */
  readonly ready: Promise<void>;

  private constructor(path: string, server: Server, way: TunnelWay) {
    this.path = path;
    this.#server = server;
    this.#way = way;
    this.ready = new Promise((resolve) => {
      this.#tellReady = resolve;
    });
    this.asked = new Promise((resolve) => {
      this.#tellAsked = resolve;
    });
    this.lost = new Promise((resolve) => {
      this.#tellLost = resolve;
    });
  }

  /**
   * Waits for one client on `path`, and connects to the destination meanwhile: see `reached`.
   * @param entered - called with the client's connection, before anything is read from it
   */
  static async open(path: string, way: TunnelWay, entered: (client: Socket) => void): Promise<TunnelEntrance> {
    const server = createServer({ pauseOnConnect: true }, (client) => own.#enter(client, entered));
    const own = new TunnelEntrance(path, server, way);
    const previousMask = process.umask(0o177);
    try {
      await listenOn(server, { path });
    } finally {
      process.umask(previousMask);
    }
    own.reached = own.#reach(way);
    own.reached.catch(() => own.#tellLost());
    return own;
  }

  async #reach({ endpoint, credentials }: TunnelWay): Promise<void> {
    const { tls } = await openConnection(endpoint, credentials, connectTimeoutMs);
    tls.pause();
    tls.once('close', () => this.#tellLost());
    if (this.#isCut) tls.destroy();
    this.#remote = tls;
  }

  /** Of a switch: the guest runs at the destination. */
  confirm(domain: { readonly name: string; readonly uuid: string }): void {
    this.#finish?.confirm(domain);
  }

  /** After `ready`: libvirt is to have the guest set out. */
  depart(): void {
    this.#finish?.preparation?.depart();
  }

  /** Whether the client waits for what the destination has answered already. */
  get isHolding(): boolean {
    return this.#finish?.preparation?.isHolding ?? false;
  }

  /** Whether the client waits for what becomes of the guest at the destination. */
  get isAsked(): boolean {
    return this.#finish?.isAsked ?? false;
  }

  /** Hangs up on the client, which takes it for a no. */
  cut(): void {
    // Not only closed: the guard has the connection open, too.
    this.#local?.destroySoon();
    this.#remote?.destroy();
    this.#isCut = true;
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
    const { switching, opensAsUsual } = this.#way;
    if (switching === null && !opensAsUsual) return this.#whenReached((remote) => pipeThrough(client, remote));
    const finish = new FinishAtSource({
      client,
      send: (raw) => this.#whenReached((remote) => remote.write(raw)),
      opening: opensAsUsual ? new AnsweredOpening() : null,
      isInFiles: switching?.isInFiles ?? false,
      // Who has asked takes it for a no, which is not for this end to say.
      lost: () => {
        if (!this.isAsked) this.cut();
      },
    });
    this.#whenReached((remote) => finish.hear(remote));
    if (switching === null) client.once('end', () => this.#whenReached((remote) => remote.end()));
    else this.#follow(finish);
  }

  #follow(finish: FinishAtSource): void {
    this.#finish = finish;
    finish.asked.then(this.#tellAsked);
    finish.preparation?.ready.then(this.#tellReady);
  }

  /** In the order of the calls. */
  #whenReached(then: (remote: TLSSocket) => void): void {
    this.reached.then(
      () => then(this.#remote!),
      () => {},
    );
  }
}

function pipeThrough(client: Socket, remote: TLSSocket): void {
  client.pipe(remote);
  // Not the other way: that the destination has hung up is not passed on, see `lost`.
  remote.pipe(client, { end: false });
}

/** The destination's end. */
export class TunnelExit implements AsyncDisposable {
  readonly port: number;
  /** Of a switch: resolves with what is between the source and the daemon when the source has connected. */
  readonly followed: Promise<FollowedDaemon>;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** Resolves when the source has hung up, and nobody else may come. */
  readonly #closed: Promise<void>;
  readonly #follows: boolean;
  #tellFollowed!: (followed: FollowedDaemon) => void;
  #isTaken = false;

  private constructor(
    server: Server,
    follows: boolean,
    /** What the source's end is to know. */
    readonly opensAsUsual: boolean,
  ) {
    this.#server = server;
    this.#follows = follows;
    this.port = (server.address() as { port: number }).port;
    this.#closed = new Promise<void>((resolve) => server.once('close', resolve));
    this.followed = new Promise((resolve) => {
      this.#tellFollowed = resolve;
    });
  }

  /**
   * @param follows - what is said there is followed: it is a switch
   * @throws LibvirtError VMMIG_LIBVIRT_UNREACHABLE when there is no daemon, or no port is free
   */
  static async open(
    credentials: LinkCredentials,
    ports: readonly [number, number] | null,
    { follows }: { readonly follows: boolean },
  ): Promise<TunnelExit> {
    const daemonPath = await findDaemon();
    const isUsual = await opensAsUsual(daemonPath);
    const server = createServer((socket) => own.#meet(socket, credentials, daemonPath));
    await listenWithin(server, ports);
    const own = new TunnelExit(server, follows, isUsual);
    return own;
  }

  /** What libvirt has still to say is waited for, and not for long; but after a switch, where nobody listens any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    const isClosed = close(this.#server);
    if (!this.#follows) await Promise.race([this.#closed, delay(lastWordsMs, undefined, { ref: false })]);
    for (const socket of this.#sockets) socket.destroy();
    await isClosed;
  }

  #meet(socket: Socket, credentials: LinkCredentials, daemonPath: string): void {
    if (this.#isTaken || this.#sockets.size >= maxStrangers) return void socket.destroy();
    this.#keep(socket);
    acceptConnection(socket, credentials, connectTimeoutMs).then(
      ({ tls }) => {
        if (this.#isTaken) return void tls.destroy();
        this.#isTaken = true;
        this.#server.close();
        const daemon = createConnection({ path: daemonPath });
        this.#keep(daemon);
        daemon.on('error', () => tls.destroy());
        if (this.#follows) this.#follow(tls, daemon);
        else join(tls, daemon, this.opensAsUsual);
      },
      () => {},
    );
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
  }

  #follow(tls: TLSSocket, daemon: Socket): void {
    const finish = new FinishAtDestination(tls, daemon, () => tls.destroy());
    let isHeld = false;
    void finish.held.then(() => {
      isHeld = true;
    });
    // From then on neither needs the other.
    for (const [one, other] of [
      [tls, daemon],
      [daemon, tls],
    ] as const)
      one.once('close', () => {
        if (!isHeld) other.destroy();
      });
    this.#tellFollowed({ daemon, finish });
  }
}

/** The connection to the daemon, and what goes over it. */
export interface FollowedDaemon {
  readonly daemon: Socket;
  readonly finish: FinishAtDestination;
}

function join(tls: TLSSocket, daemon: Socket, isPaced: boolean): void {
  tls.once('close', () => daemon.destroy());
  daemon.once('close', () => tls.end());
  if (!isPaced) {
    daemon.pipe(tls);
    tls.pipe(daemon);
    return;
  }
  const lost = () => tls.destroy();
  const opening = new PacedOpening((raw) => daemon.write(raw));
  tls.once('end', () => daemon.end());
  follow(tls, lost, (message) => opening.call(message));
  follow(daemon, lost, (message) => {
    opening.heard(message);
    tls.write(message.raw);
  });
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
