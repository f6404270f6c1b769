/** A QMP server that says what it is told to: for answers that a real QEMU does not give on demand. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { QmpClient, type QmpConnectOptions } from '../../qmp/index.js';

export const GREETING = {
  QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 }, package: 'fake' }, capabilities: ['oob'] },
};

export interface FakeRequest {
  execute?: string;
  'exec-oob'?: string;
  arguments?: unknown;
  id: string;
}

/** The server's side of one connection. */
export class FakeMonitor {
  readonly #lines: Interface;
  readonly #requests: AsyncIterator<string>;

  constructor(readonly socket: net.Socket) {
    socket.on('error', () => undefined);
    this.#lines = createInterface({ input: socket });
    this.#requests = this.#lines[Symbol.asyncIterator]();
  }

  send(...messages: object[]): void {
    this.socket.write(messages.map((message) => `${JSON.stringify(message)}\r\n`).join(''));
  }

  event(event: string, data: object = {}): void {
    this.send({ event, data, timestamp: { seconds: 1, microseconds: 2 } });
  }

  /** The client's next command. */
  async request(): Promise<FakeRequest> {
    const { value, done } = await this.#requests.next();
    if (done) throw new Error('the client has closed the connection');
    return JSON.parse(value) as FakeRequest;
  }

  async requests(count: number): Promise<FakeRequest[]> {
    const requests: FakeRequest[] = [];
    while (requests.length < count) requests.push(await this.request());
    return requests;
  }

  reply({ id }: FakeRequest, value: unknown = {}): void {
    this.send({ return: value, id });
  }

  async negotiate(): Promise<void> {
    this.send(GREETING);
    this.reply(await this.request());
  }
}

/** Listens on a unix socket of its own. */
export class FakeServer implements AsyncDisposable {
  readonly #accepted: Promise<FakeMonitor>;
  readonly #sockets = new Set<net.Socket>();

  private constructor(
    readonly directory: string,
    readonly path: string,
    readonly server: net.Server,
  ) {
    server.on('connection', (socket) => this.#sockets.add(socket));
    this.#accepted = once(server, 'connection').then(([socket]) => new FakeMonitor(socket as net.Socket));
    this.#accepted.catch(() => undefined);
  }

  static async listen(): Promise<FakeServer> {
    const directory = await mkdtemp(join(tmpdir(), 'vmmig-fake-qmp-'));
    const path = join(directory, 'qmp.sock');
    const server = net.createServer().listen(path);
    await once(server, 'listening');
    return new FakeServer(directory, path, server);
  }

  /** The first connection. */
  accept(): Promise<FakeMonitor> {
    return this.#accepted;
  }

  /** A negotiated client and the server's side of its connection. */
  async connect(options?: QmpConnectOptions): Promise<{ client: QmpClient; monitor: FakeMonitor }> {
    const connecting = QmpClient.connect({ path: this.path }, options);
    const monitor = await this.accept();
    await monitor.negotiate();
    return { client: await connecting, monitor };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.server.close();
    await rm(this.directory, { recursive: true, force: true });
  }
}
