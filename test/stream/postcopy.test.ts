import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  commandName,
  decodeRamDiscard,
  encodeReturnPath,
  passThrough,
  ReturnPathDecoder,
  type ReturnPathMessage,
  StreamCommand,
  StreamDecoder,
  StreamEncoder,
} from '../../stream/index.js';
import { scratchDirectory, startGuest, VERSIONS } from './guest.js';

const scratch = await scratchDirectory();
afterAll(() => scratch[Symbol.asyncDispose]());

/** Between two QEMUs: decodes and encodes what goes either way. */
class Between implements AsyncDisposable {
  readonly commands: string[] = [];
  readonly messages: ReturnPathMessage[] = [];
  pagesAfterPackage = 0;
  ended = false;
  sameBytes = true;
  failure: unknown = null;
  readonly #server = createServer((source) => this.#connected(source));
  readonly #sockets: Socket[] = [];

  constructor(
    readonly sourcePath: string,
    readonly destinationPath: string,
  ) {}

  async listen(): Promise<void> {
    this.#server.listen(this.sourcePath);
    await once(this.#server, 'listening');
  }

  #connected(source: Socket): void {
    const destination = connect(this.destinationPath);
    this.#sockets.push(source, destination);
    const encoder = new StreamEncoder();
    const encode = passThrough(encoder, () => decoder.lastFlags);
    const countPage = () => {
      if (this.commands.includes('PACKAGED')) this.pagesAfterPackage += 1;
    };
    const decoder: StreamDecoder = new StreamDecoder({
      ...encode,
      command: (command, data, raw) => {
        const isDiscard = command === StreamCommand.postcopyRamDiscard;
        this.commands.push(isDiscard ? `discard ${decodeRamDiscard(data).block}` : commandName(command));
        encode.command(command, data, raw);
      },
      packaged: (nested, raw) => {
        this.commands.push('PACKAGED');
        encode.packaged(nested, raw);
      },
      page: (...page) => {
        countPage();
        encode.page(...page);
      },
      zeroPage: (...page) => {
        countPage();
        encode.zeroPage(...page);
      },
      end: () => {
        this.ended = true;
      },
    });
    const answers = new ReturnPathDecoder();
    const pending: Buffer[] = [];
    this.#forward(source, destination, (chunk) => {
      decoder.feed(chunk);
      pending.push(chunk);
      const encoded = encoder.take();
      const original = Buffer.concat(pending.splice(0));
      if (!original.subarray(0, encoded.length).equals(encoded)) this.sameBytes = false;
      pending.push(original.subarray(encoded.length));
      return encoded;
    });
    this.#forward(destination, source, (chunk) => {
      const messages = answers.feed(chunk);
      this.messages.push(...messages);
      return Buffer.concat(messages.map(encodeReturnPath));
    });
    source.on('end', () => {
      decoder.end();
      destination.end();
    });
  }

  #forward(from: Socket, to: Socket, recode: (chunk: Buffer) => Buffer): void {
    from.on('error', () => {});
    from.on('data', (chunk) => {
      try {
        to.write(recode(chunk));
      } catch (error) {
        this.failure = error;
        from.destroy();
        to.destroy();
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

describe.each(VERSIONS)('a post-copy between two QEMUs %s', (version) => {
  it('goes through decoder and encoder in both directions, unchanged', async () => {
    const options = { capabilities: ['postcopy-ram'] } as const;
    await using source = await startGuest(version, scratch.path, options);
    await using destination = await startGuest(version, scratch.path, { ...options, incoming: true });
    await using between = new Between(join(scratch.path, `${version}-from`), join(scratch.path, `${version}-to`));
    await between.listen();
    await destination.qmp.execute('migrate-incoming', { uri: `unix:${between.destinationPath}` });
    // Slow enough for post-copy to begin when next to nothing has been sent, and for pages to be missed then.
    const slow = { 'max-bandwidth': 50_000, 'max-postcopy-bandwidth': 200_000 };
    await source.qmp.execute('migrate-set-parameters', slow);
    await source.qmp.execute('migrate', { uri: `unix:${between.sourcePath}` });
    await source.qmp.execute('migrate-start-postcopy');
    await destination.migration('postcopy-active');
    await destination.memory(2 ** 25, 2 ** 22);
    await Promise.all([source.migration('completed'), destination.migration('completed')]);
    expect(between).toMatchObject({ failure: null, sameBytes: true, ended: true });
    expect(between.commands).toEqual(
      expect.arrayContaining(['OPEN_RETURN_PATH', 'PING', 'POSTCOPY_ADVISE', 'discard pc.ram', 'PACKAGED']),
    );
    expect(between.messages.map(({ type }) => type)).toEqual(expect.arrayContaining(['pong', 'request-pages', 'shut']));
    expect(between.pagesAfterPackage).toBeGreaterThan(1000);
    expect((await destination.memory()).equals(await source.memory())).toBe(true);
  });
});
