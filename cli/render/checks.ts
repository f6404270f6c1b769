/** What `doctor` and `host check` found: what is there, what is missing, and how to get it. */
import type { Check } from '../../migrate/index.js';
import { clean } from './format.js';
import { displayWidth, type Page, padEnd, type Style } from './style.js';
import { wrap } from './table.js';

export function checkLines(checks: readonly Check[], { style, textWidth }: Page): string[] {
  const { symbols } = style;
  const nameWidth = Math.max(0, ...checks.map((check) => displayWidth(check.name)));
  const lines = checks.flatMap((check) => {
    const mark = check.ok
      ? style.green(symbols.done)
      : check.severity === 'required'
        ? style.red(symbols.failed)
        : style.yellow(symbols.warning);
    const indent = nameWidth + 4;
    const [first = '', ...more] = wrap(clean(check.detail), textWidth, indent);
    const remedy =
      check.ok || check.remedy === null ? [] : wrap(`${symbols.arrow} ${clean(check.remedy)}`, textWidth, indent);
    return [`${mark} ${padEnd(clean(check.name), nameWidth)}  ${first.trimStart()}`, ...more, ...remedy];
  });
  return [...lines, '', verdict(checks, style)];
}

function verdict(checks: readonly Check[], style: Style): string {
  const missing = checks.filter((check) => !check.ok);
  const required = missing.filter((check) => check.severity === 'required').length;
  const recommended = missing.length - required;
  if (required > 0) return style.red(`${required} required ${required === 1 ? 'thing is' : 'things are'} missing.`);
  if (recommended > 0)
    return `Ready; ${recommended} recommended ${recommended === 1 ? 'thing is' : 'things are'} missing.`;
  return style.green('Ready.');
}
