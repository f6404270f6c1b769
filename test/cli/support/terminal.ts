/**
 * A terminal as far as the progress needs one: it keeps what is on the screen after text, line ends, cursor up, erase
 * to end of line and erase to end of screen. Colours and synchronised output take no place.
 */
import { type OutputStream, Sink } from '../../../cli/output.js';

export class ScreenStream implements OutputStream {
  readonly isTTY = true;
  readonly rows = 40;
  readonly written: string[] = [];
  #lines: string[] = [''];
  #row = 0;
  #column = 0;

  constructor(public columns: number) {}

  on(): void {}

  write(text: string): void {
    this.written.push(text);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: a terminal is made of them
    for (const [token, parameter, command] of text.matchAll(/\x1b\[(\??[0-9;]*)([A-Za-z])|./gs)) {
      if (command === undefined) this.#put(token);
      else if (command === 'A') this.#row = Math.max(0, this.#row - Number(parameter || 1));
      else if (command === 'K') this.#lines[this.#row] = this.#line().slice(0, this.#column);
      else if (command === 'J') {
        this.#lines[this.#row] = this.#line().slice(0, this.#column);
        this.#lines.length = this.#row + 1;
      } else if (command !== 'm' && command !== 'h' && command !== 'l')
        throw new Error(`unexpected ${JSON.stringify(token)}`);
    }
  }

  /** What a person sees, without empty lines at the end. */
  get screen(): string[] {
    return this.#lines
      .map((line) => line.trimEnd())
      .join('\n')
      .trimEnd()
      .split('\n');
  }

  /** Makes the window narrower or wider, as terminals do that wrap what is there already. */
  resize(columns: number): void {
    this.columns = columns;
    const above = this.#lines.slice(0, this.#row);
    this.#lines = above.flatMap((line) => line.trimEnd().match(new RegExp(`.{1,${columns}}`, 'gu')) ?? ['']);
    this.#row = this.#lines.length;
    this.#lines.push('');
    this.#column = 0;
  }

  #line(): string {
    return this.#lines[this.#row] ?? '';
  }

  #put(character: string): void {
    if (character === '\n') {
      this.#row++;
      this.#column = 0;
      while (this.#lines.length <= this.#row) this.#lines.push('');
    } else if (character === '\r') {
      this.#column = 0;
    } else {
      if (this.#column >= this.columns) this.#put('\n');
      const line = this.#line().padEnd(this.#column);
      this.#lines[this.#row] = line.slice(0, this.#column) + character + line.slice(this.#column + 1);
      this.#column++;
    }
  }
}

/** What is written to a pipe or a file. */
export class TextStream implements OutputStream {
  readonly isTTY = false;
  text = '';
  write(text: string): void {
    this.text += text;
  }
  on(): void {}
  get lines(): string[] {
    return this.text.trimEnd().split('\n');
  }
}

export function sinkFor(stream: OutputStream, env: NodeJS.ProcessEnv = { TERM: 'xterm', LANG: 'C.UTF-8' }): Sink {
  return new Sink(stream, env, false);
}
