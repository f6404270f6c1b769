/**
 * The failure table of docs/failures.md, as data. Its grammar:
 *
 *   ## TITLE                      a mode
 *   | what is struck | PHASE | …  rows are strikes, columns are phases
 *   OUTCOME [or OUTCOME]… [?]     a cell; empty where it does not apply. `?`: not tried yet, when the table was written
 *   WHERE EXIT [CODE[/CODE]…]     an outcome. Then, after `→`, what `vmmig recover` makes of it
 */
import { readFileSync } from 'node:fs';

export const modes = {
  Teleport: 'teleport',
  Switch: 'switch',
  'Switch, memory in a file': 'switchFile',
  'Domains of libvirt': 'domain',
  'Domains, memory in a file': 'domainFile',
} as const;
export type TableMode = (typeof modes)[keyof typeof modes];

export interface Expectation {
  /** `waiting`: on the destination, for memory; `paused`: on the source, and it stays so; `lost`: nowhere. */
  readonly where: 'source' | 'destination' | 'waiting' | 'paused' | 'lost';
  /** Null when the command was killed. */
  readonly exitCode: number | null;
  /** Any of these, without `VMMIG_`; none when the report has no error. */
  readonly codes: readonly string[];
}

export interface TableOutcome extends Expectation {
  readonly recovered: Expectation | null;
}

export interface Cell {
  readonly mode: TableMode;
  readonly strike: string;
  readonly phase: string;
  /** One of these; no two have the same place and exit code. */
  readonly outcomes: readonly TableOutcome[];
}

const expectation = /^(source|destination|waiting|paused|lost) (\d|–)(?: ([A-Z_]+(?:\/[A-Z_]+)*))?$/;

/** @throws SyntaxError for what is no such table */
export function readFailureTable(): Cell[] {
  return parseFailureTable(readFileSync(new URL('../../docs/failures.md', import.meta.url), 'utf8'));
}

export function parseFailureTable(text: string): Cell[] {
  const sections = text.split(/^## /m).slice(1);
  return sections.flatMap((section) => {
    const [title = '', ...lines] = section.split('\n');
    const mode = modes[title as keyof typeof modes];
    if (mode === undefined) return [];
    const [head = [], ...rows] = lines.filter((line) => line.startsWith('| ')).map(cellsOf);
    const phases = head.slice(1);
    return rows.flatMap(([strike = '', ...cells]) => {
      if (cells.length !== phases.length)
        throw new SyntaxError(`${title}: the row "${strike}" has ${cells.length} cells`);
      return cells.flatMap((cell, index): Cell[] => {
        if (cell === '') return [];
        const outcomes = cell.split(' or ').map((outcome) => parseOutcome(outcome, `${title}, ${strike}`));
        return [{ mode, strike, phase: phases[index]!, outcomes }];
      });
    });
  });
}

function cellsOf(line: string): string[] {
  return line
    .split('|')
    .slice(1, -1)
    .map((cell) => cell.trim());
}

function parseOutcome(text: string, where: string): TableOutcome {
  const [at, recovered, ...rest] = text.split(' → ').map((part) => parseExpectation(part, where));
  if (rest.length > 0) throw new SyntaxError(`${where}: "${text}" has too many arrows`);
  return { ...at!, recovered: recovered ?? null };
}

function parseExpectation(text: string, where: string): Expectation {
  const match = expectation.exec(text);
  if (match === null) throw new SyntaxError(`${where}: "${text}" is no cell`);
  const [, place, exitCode, codes] = match;
  return {
    where: place as Expectation['where'],
    exitCode: exitCode === '–' ? null : Number(exitCode),
    codes: codes?.split('/') ?? [],
  };
}
