import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { quoteShell } from '../../hosts/quote.js';

/** What can be an argument in the first place: UTF-8 without NUL. */
const word = fc
  .string({ unit: 'binary' })
  .filter((text) => !text.includes('\0') && Buffer.from(text).toString() === text);

test.each(['/bin/sh', '/bin/bash'])('%s hands quoted words on unchanged', (shell) => {
  const property = fc.property(fc.array(word, { minLength: 1, maxLength: 20 }), (words) => {
    const output = execFileSync(shell, ['-c', `printf '%s\\0' ${quoteShell(words)}`], { encoding: 'utf8' });
    expect(output.split('\0').slice(0, -1)).toEqual(words);
  });
  fc.assert(property, { numRuns: 50 });
});

test('plain words stay as they are', () => {
  expect(quoteShell(['/usr/bin/vmmig', 'host-service', '--level=1', '-x', ''])).toBe(
    "/usr/bin/vmmig host-service '--level=1' -x ''",
  );
});

test('a NUL character cannot be part of an argument', () => {
  expect(() => quoteShell(['a\0b'])).toThrow(RangeError);
});
