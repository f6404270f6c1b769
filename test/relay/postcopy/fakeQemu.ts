/**
 * A QEMU by the book: takes a post-copy stream as the real one does, and complains where that one would end. Its memory
 * is one number for each page (the first four bytes), and like a real kernel it puts in more than it is given: a page
 * loaded before the switch brings a whole transparent huge page of zeroes with it.
 */
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import {
  commandName,
  decodeRamDiscard,
  encodeReturnPath,
  type RamBlock,
  RamFlag,
  type ReturnPathMessage,
  StreamCommand,
  StreamDecoder,
} from '../../../stream/index.js';

/** Of a transparent huge page here. */
const pagesPutInTogether = 8;

interface FakeBlock {
  readonly block: RamBlock;
  readonly hostPage: number;
  readonly values: Uint32Array;
  /** Touching it causes no fault. */
  readonly present: Uint8Array;
  readonly received: Uint8Array;
}

export class FakeQemu implements AsyncDisposable {
  /** What came, in order: commands by name, `end`, and pages after the switch as `block:page`. */
  readonly came: string[] = [];
  /** Why a real QEMU would have ended. */
  readonly complaints: string[] = [];
  readonly blocks = new Map<string, FakeBlock>();
  readonly #server: Server;
  #socket: Socket | null = null;
  #isAsking = false;
  #lastRequested = '';
  /** The host page being put together. */
  #begun: { name: string; first: number; pages: Map<number, number> } | null = null;
  onPage: (name: string, page: number) => void = () => {};
  /** As one that has a second connection: it asks for this when the stream has ended, and waits for the answer there. */
  asksLast: { readonly name: string; readonly page: number } | null = null;
  #hasSecond = false;

  private constructor(server: Server) {
    this.#server = server;
    server.on('connection', (socket) => {
      if (this.#socket === null) this.#connected(socket);
      else this.#connectedAgain(socket);
    });
  }

  static async listen(path: string): Promise<FakeQemu> {
    const server = createServer();
    const qemu = new FakeQemu(server);
    await once(server.listen(path), 'listening');
    return qemu;
  }

  /** The guest touches a page; returns whether QEMU asked for it. */
  touch(name: string, page: number): boolean {
    const { block, hostPage, present } = this.blocks.get(name)!;
    if (present[page] === 1) return false;
    const offsetBytes = (page - (page % hostPage)) * 4096;
    const named = this.#lastRequested !== name;
    this.#lastRequested = name;
    this.say({ type: 'request-pages', block: block.name, offsetBytes, lengthBytes: hostPage * 4096, named });
    return true;
  }

  say(message: ReturnPathMessage): void {
    this.raw(encodeReturnPath(message));
  }

  raw(bytes: Buffer): void {
    this.#socket!.write(bytes);
  }

  /** Takes nothing, or goes on. */
  stall(stalled: boolean): void {
    if (stalled) this.#socket!.pause();
    else this.#socket!.resume();
  }

  hangUp(): void {
    this.#socket?.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket?.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #connected(socket: Socket): void {
    this.#socket = socket;
    const decoder = new StreamDecoder({
      ramBlocks: (blocks) => {
        for (const block of blocks) this.#addBlock(block);
      },
      command: (command, data) => this.#command(command, data),
      packaged: (nested) => this.#packaged(nested),
      page: ({ name }, page, source, start) => this.#page(name, page, source.readUInt32LE(start)),
      zeroPage: ({ name }, page) => this.#page(name, page, 0),
      sectionEnd: ({ type }) => {
        if (type === 'end') this.came.push('end');
      },
      eof: () => {
        if (this.asksLast === null) this.say({ type: 'shut', value: 0 });
        else this.touch(this.asksLast.name, this.asksLast.page);
      },
    });
    socket.on('error', () => {});
    socket.on('data', (chunk) => decoder.feed(chunk));
  }

  /** What comes here is pages outside of any section. */
  #connectedAgain(socket: Socket): void {
    let waiting = Buffer.alloc(0);
    this.#hasSecond = true;
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      waiting = Buffer.concat([waiting, chunk]);
      while (waiting.length >= 8) {
        const head = waiting.readBigUInt64BE();
        const flags = Number(head & 0xfffn);
        if (flags === RamFlag.eos) {
          this.came.push('end of the second');
          waiting = waiting.subarray(8);
          continue;
        }
        const nameBytes = flags & RamFlag.continue ? 0 : 1 + waiting[8]!;
        if (!(flags & RamFlag.zero)) this.complaints.push('no zero page on the second connection');
        const name = waiting.toString('latin1', 9, 8 + nameBytes) || this.#begun!.name;
        waiting = waiting.subarray(8 + nameBytes + 1);
        this.#page(name, Number(head >> 12n), 0);
        if (this.#begun === null) this.say({ type: 'shut', value: 0 });
      }
    });
  }

  get hasSecond(): boolean {
    return this.#hasSecond;
  }

  #addBlock(block: RamBlock): void {
    const pages = block.lengthBytes / 4096;
    const bits = () => new Uint8Array(pages);
    const hostPage = (block.pageSizeBytes ?? 4096) / 4096;
    const values = new Uint32Array(pages);
    this.blocks.set(block.name, { block, hostPage, values, present: bits(), received: bits() });
  }

  #command(command: number, data: Buffer): void {
    if (command === StreamCommand.ping) this.say({ type: 'pong', value: data.readUInt32BE(0) });
    if (command === StreamCommand.postcopyListen) this.#isAsking = true;
    if (command !== StreamCommand.postcopyRamDiscard) {
      this.came.push(commandName(command));
      return;
    }
    if (this.#isAsking) this.complaints.push('pages are dropped after the switch');
    const { block, ranges } = decodeRamDiscard(data);
    const { hostPage, values, present, received } = this.blocks.get(block)!;
    for (const { startBytes, lengthBytes } of ranges) {
      const [from, to] = [startBytes / 4096, (startBytes + lengthBytes) / 4096];
      this.came.push(`discard ${block}:${from}+${to - from}`);
      if (from % hostPage !== 0 || to % hostPage !== 0) this.complaints.push('parts of a host page are dropped');
      for (const bits of [values, present, received]) bits.fill(0, from, to);
    }
  }

  #packaged(nested: Buffer): void {
    if (!this.came.some((each) => each.startsWith('discard'))) this.complaints.push('nothing was dropped');
    // LISTEN, device sections, PING, RUN: what lies between is not looked at.
    this.came.push('packaged');
    this.#isAsking = true;
    this.say({ type: 'pong', value: nested.readUInt32BE(nested.length - 9) });
  }

  #page(name: string, page: number, value: number): void {
    const { hostPage, values, present, received } = this.blocks.get(name)!;
    if (!this.#isAsking) {
      const unit = Math.max(hostPage, pagesPutInTogether);
      present.fill(1, page - (page % unit), page - (page % unit) + unit);
      received[page] = 1;
      values[page] = value;
      return;
    }
    this.came.push(`${name}:${page}`);
    const first = page - (page % hostPage);
    this.#begun ??= { name, first, pages: new Map() };
    if (this.#begun.name !== name || this.#begun.first !== first) this.complaints.push('host pages are mixed');
    this.#begun.pages.set(page, value);
    if (this.#begun.pages.size < hostPage) return;
    for (const [each, its] of this.#begun.pages) {
      if (present[each] === 1) this.complaints.push(`EEXIST ${name}:${each}`);
      present[each] = 1;
      received[each] = 1;
      values[each] = its;
    }
    this.#begun = null;
    this.onPage(name, page);
  }
}
