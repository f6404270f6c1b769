/** The two output streams: results on stdout, human text on stderr, and neither may take a migration down. */
import { type Page, type Style, styleFor } from './render/style.js';

export interface OutputStream {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
  readonly rows?: number | undefined;
  write(text: string): unknown;
  on(event: 'error', listener: (error: Error) => void): unknown;
}

/** Wider than this, text is harder to read, not easier. */
const widestText = 100;

export class Sink implements Page {
  readonly style: Style;
  /** A person is watching, and lines may be redrawn. */
  readonly animated: boolean;
  #closed = false;

  constructor(
    readonly stream: OutputStream,
    env: NodeJS.ProcessEnv,
    noColor: boolean,
  ) {
    this.style = styleFor(env, stream, noColor);
    this.animated = stream.isTTY === true && env.TERM !== 'dumb';
    // The reader went away (`| head`, a closed terminal): what runs must run on, silently.
    stream.on('error', () => {
      this.#closed = true;
    });
  }

  get isTerminal(): boolean {
    return this.stream.isTTY === true;
  }

  /** Columns of the terminal; 80 where there is none. */
  get columns(): number {
    return this.isTerminal && this.stream.columns ? this.stream.columns : 80;
  }

  get rows(): number {
    return this.isTerminal && this.stream.rows ? this.stream.rows : 24;
  }

  /** Columns for running text. */
  get textWidth(): number {
    return Math.min(this.columns, widestText);
  }

  get tableWidth(): number {
    return this.isTerminal ? this.columns : Number.POSITIVE_INFINITY;
  }

  write(text: string): void {
    if (!this.#closed) this.stream.write(text);
  }

  lines(lines: readonly string[]): void {
    if (lines.length > 0) this.write(`${lines.join('\n')}\n`);
  }
}

export class Output {
  readonly stdout: Sink;
  readonly stderr: Sink;

  constructor(streams: { stdout: OutputStream; stderr: OutputStream }, env: NodeJS.ProcessEnv, noColor: boolean) {
    this.stdout = new Sink(streams.stdout, env, noColor);
    this.stderr = new Sink(streams.stderr, env, noColor);
  }

  /** A result for scripts. */
  json(value: unknown): void {
    this.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
  }

  result(lines: readonly string[]): void {
    this.stdout.lines(lines);
  }

  note(...lines: string[]): void {
    this.stderr.lines(lines);
  }
}
