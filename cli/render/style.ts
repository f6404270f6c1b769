/** Colours and symbols of one output stream: none where a person does not want them or a terminal cannot show them. */
import { stripVTControlCharacters } from 'node:util';

export type Paint = (text: string) => string;

export interface Style {
  readonly bold: Paint;
  readonly dim: Paint;
  readonly red: Paint;
  readonly green: Paint;
  readonly yellow: Paint;
  readonly cyan: Paint;
  readonly magenta: Paint;
  readonly symbols: Symbols;
}

export interface Symbols {
  readonly done: string;
  readonly failed: string;
  readonly warning: string;
  readonly running: string;
  readonly waiting: string;
  readonly arrow: string;
  readonly separator: string;
  readonly ellipsis: string;
  /** The parts of a bar; they differ in shape too, so that a bar reads without colours. */
  readonly bar: { readonly teleported: string; readonly sent: string; readonly zero: string; readonly rest: string };
}

const unicodeSymbols: Symbols = {
  done: '✔',
  failed: '✖',
  warning: '▲',
  running: '●',
  waiting: '○',
  arrow: '→',
  separator: '·',
  ellipsis: '…',
  bar: { teleported: '█', sent: '▓', zero: '░', rest: '─' },
};

const asciiSymbols: Symbols = {
  done: '+',
  failed: 'x',
  warning: '!',
  running: '*',
  waiting: '-',
  arrow: '->',
  separator: '|',
  ellipsis: '...',
  bar: { teleported: '#', sent: '=', zero: ':', rest: '.' },
};

const codes = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  cyan: [36, 39],
  magenta: [35, 39],
};

/** How to write to a stream, given what it is and what the environment asks for. */
export function styleFor(env: NodeJS.ProcessEnv, stream: { isTTY?: boolean | undefined }, noColor = false): Style {
  const colours = stream.isTTY === true && !noColor && !env.NO_COLOR && env.TERM !== 'dumb';
  const paint = ([open, close]: readonly number[]): Paint =>
    colours ? (text) => `\x1b[${open}m${text}\x1b[${close}m` : (text) => text;
  return {
    bold: paint(codes.bold),
    dim: paint(codes.dim),
    red: paint(codes.red),
    green: paint(codes.green),
    yellow: paint(codes.yellow),
    cyan: paint(codes.cyan),
    magenta: paint(codes.magenta),
    symbols: speaksUtf8(env) ? unicodeSymbols : asciiSymbols,
  };
}

/** No locale at all is what containers and `sudo` leave behind, on terminals that do show UTF-8. */
function speaksUtf8(env: NodeJS.ProcessEnv): boolean {
  const locale = env.LC_ALL || env.LC_CTYPE || env.LANG || '';
  return locale === '' || /utf-?8/i.test(locale);
}

/** What text is written on: how to paint, and how much room there is. */
export interface Page {
  readonly style: Style;
  /** Columns for running text. */
  readonly textWidth: number;
  /** Columns for tables: infinite off a terminal, where nothing has to be cut. */
  readonly tableWidth: number;
}

const wide = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]/u;

/** Columns that a text takes on a terminal. */
export function displayWidth(text: string): number {
  let width = 0;
  for (const character of stripVTControlCharacters(text)) width += wide.test(character) ? 2 : 1;
  return width;
}

export function padEnd(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - displayWidth(text)));
}

export function padStart(text: string, width: number): string {
  return ' '.repeat(Math.max(0, width - displayWidth(text))) + text;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: it looks for the escapes that `paint` writes
const escapeOrCharacter = /\x1b\[[0-9;]*m|./gsu;

/** A painted text cut to so many columns; colours are closed where it was cut. */
export function truncate(text: string, width: number, ellipsis: string): string {
  if (displayWidth(text) <= width) return text;
  const room = width - displayWidth(ellipsis);
  if (room < 0) return ellipsis.slice(0, Math.max(0, width));
  let kept = '';
  let used = 0;
  let painted = false;
  for (const [token] of text.matchAll(escapeOrCharacter)) {
    if (token.startsWith('\x1b')) {
      painted = true;
      kept += token;
      continue;
    }
    used += displayWidth(token);
    if (used > room) break;
    kept += token;
  }
  return `${kept}${ellipsis}${painted ? '\x1b[0m' : ''}`;
}
