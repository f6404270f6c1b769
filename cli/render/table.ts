/** Columns of text, aligned; the last column takes what is left. */
import { displayWidth, type Page, padEnd, padStart, truncate } from './style.js';

export interface Column {
  readonly title: string;
  readonly align?: 'left' | 'right';
}

/** Lines of a table, titles included unless they are all empty. Cells may be painted; lines are cut to the page. */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[], page: Page): string[] {
  const { style } = page;
  const widths = columns.map((column, index) =>
    Math.max(displayWidth(column.title), ...rows.map((row) => displayWidth(row[index] ?? ''))),
  );
  const line = (cells: readonly string[]): string => {
    const padded = columns.map((column, index) =>
      (column.align === 'right' ? padStart : padEnd)(cells[index] ?? '', widths[index]!),
    );
    return truncate(padded.join('  ').trimEnd(), page.tableWidth, style.symbols.ellipsis);
  };
  const titles = columns.map((column) => column.title);
  const head = titles.some((title) => title !== '') ? [style.dim(line(titles))] : [];
  return [...head, ...rows.map(line)];
}

/** Words in lines of at most `width` columns, each line indented by so many spaces. */
export function wrap(text: string, width: number, indent = 0): string[] {
  const room = Math.max(20, width - indent);
  const lines: string[] = [];
  let current = '';
  for (const word of text.split(/\s+/).filter((part) => part !== '')) {
    if (current !== '' && displayWidth(current) + 1 + displayWidth(word) > room) {
      lines.push(current);
      current = word;
    } else {
      current = current === '' ? word : `${current} ${word}`;
    }
  }
  if (current !== '') lines.push(current);
  return lines.map((line) => ' '.repeat(indent) + line);
}
