/**
 * The connection to an agent that runs behind two files in the guest, as a stream like any other: what is written goes to
 * the FIFO that it reads, and its output file is read again and again while something is expected.
 */
import { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { AgentError } from '../errors.js';
import { encodeFrame, frameType } from '../protocol.js';
import { QgaCommands } from './commands.js';
import type { QgaTransport } from './transport.js';

/** What qemu-ga reads, it holds several times over until it is sent. */
const READ_BYTES = 256 * 1024;
/** The agent holds back when 4 MiB wait for us. */
const ACKNOWLEDGE_BYTES = 1024 * 1024;
/** An agent that hears nothing for half a minute leaves. */
const ACKNOWLEDGE_INTERVAL_MS = 5_000;
const MIN_PAUSE_MS = 5;
const MAX_PAUSE_MS = 80;
/** After so much silence it is asked whether the agent is still there. */
const LIFE_CHECK_MS = 1_000;
/** For what is left to do when the stream is of no use any more. */
const CLOSE_TIMEOUT_MS = 1_000;
const MIN_END_POLL_MS = 10;

/** What the guest has open for us. */
export interface QgaFiles {
  pid: number;
  /** Handles of qemu-ga. */
  input: number;
  output: number;
}

const noSession = Buffer.alloc(8);

export class QgaStream extends Duplex {
  readonly #transport: QgaTransport;
  readonly #commands: QgaCommands;
  readonly #files: QgaFiles;
  readonly #stop = new AbortController();
  #expecting = 0;
  #reading: Promise<void> = Promise.resolve();
  #received = 0;
  #acknowledged = 0;
  /** Settles when the guest has closed the files and the agent has ended there, or cannot be reached. */
  ended: Promise<void> = Promise.resolve();

  constructor(transport: QgaTransport, files: QgaFiles) {
    super({ emitClose: true });
    this.#transport = transport;
    this.#commands = new QgaCommands(transport);
    this.#files = files;
  }

  /** Reads until what is returned is disposed of. Otherwise nothing is asked of the guest. */
  expect(): Disposable {
    this.#expecting++;
    if (this.#expecting === 1) this.#reading = this.#reading.then(() => this.#readAll());
    return {
      [Symbol.dispose]: () => {
        this.#expecting--;
      },
    };
  }

  /**
   * Makes sure that nothing was lost on the way, and nothing came twice: each frame has a checksum, but whole frames may be
   * missing.
   * @throws AgentError `VMMIG_AGENT_PROTOCOL`, and others of {@link QgaTransport}; the stream is of no use any more then
   */
  async verify(): Promise<void> {
    try {
      const position = await this.#commands.position(this.#files.output);
      if (position === this.#received) return;
      const message = `Of ${position} bytes of the agent in the guest ${this.#received} have arrived`;
      throw new AgentError('VMMIG_AGENT_PROTOCOL', message);
    } catch (error) {
      this.destroy(error as Error);
      throw error;
    }
  }

  async #readAll(): Promise<void> {
    let pauseMs = MIN_PAUSE_MS;
    let acknowledgedAt = performance.now();
    let heardAt = acknowledgedAt;
    try {
      while (this.#expecting > 0 && !this.destroyed) {
        const bytes = await this.#commands.read(this.#files.output, READ_BYTES);
        const now = performance.now();
        if (bytes.length > 0) {
          this.#received += bytes.length;
          this.push(bytes);
          pauseMs = MIN_PAUSE_MS;
          heardAt = now;
        }
        const owed = this.#received - this.#acknowledged;
        if (owed >= ACKNOWLEDGE_BYTES || now - acknowledgedAt >= ACKNOWLEDGE_INTERVAL_MS) {
          acknowledgedAt = now;
          await this.#acknowledge();
        }
        if (now - heardAt >= LIFE_CHECK_MS) {
          heardAt = now;
          await this.#checkLife();
        }
        if (bytes.length > 0) continue;
        await delay(pauseMs, undefined, { signal: this.#stop.signal });
        pauseMs = Math.min(pauseMs * 2, MAX_PAUSE_MS);
      }
    } catch (error) {
      this.destroy(error as Error);
    }
  }

  async #acknowledge(): Promise<void> {
    const total = Buffer.alloc(8);
    total.writeBigUInt64LE(BigInt(this.#received));
    await this.#commands.write(this.#files.input, encodeFrame(frameType.read, noSession, 0, total));
    this.#acknowledged = this.#received;
  }

  async #checkLife(): Promise<void> {
    const end = await this.#commands.end(this.#files.pid);
    if (end !== null)
      throw new AgentError('VMMIG_AGENT_DISCONNECTED', `The agent in the guest has ended ${end.message}`);
  }

  /** What has arrived is handed on by itself. */
  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#commands.write(this.#files.input, chunk).then(() => done(), done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    // A command that is under way is not interrupted: whoever comes next would have to wait for its end all the same.
    this.#stop.abort();
    this.ended = this.#close().catch(() => {});
    done(error);
  }

  /** The agent leaves when its input is closed. */
  async #close(): Promise<void> {
    const signal = AbortSignal.timeout(CLOSE_TIMEOUT_MS);
    const commands = new QgaCommands(this.#transport, { signal, timeoutMs: CLOSE_TIMEOUT_MS });
    await commands.close(this.#files.input);
    await commands.close(this.#files.output);
    for (let pollMs = MIN_END_POLL_MS; ; pollMs *= 2) {
      await delay(pollMs, undefined, { signal });
      if ((await commands.end(this.#files.pid)) !== null) return;
    }
  }
}
