import { describe, expect, it } from 'vitest';
import { editDistance, nearest } from '../../cli/suggest.js';

describe('nearest', () => {
  const verbs = ['teleport', 'preflight', 'cancel', 'list', 'history', 'show'];

  it.each([
    ['telport', 'teleport'],
    ['TELEPORT', 'teleport'],
    ['tele', 'teleport'],
    ['lsit', 'list'],
    ['cancle', 'cancel'],
    ['hist', 'history'],
  ])('takes %s for %s', (typed, meant) => {
    expect(nearest(typed, verbs)).toBe(meant);
  });

  it('offers nothing when nothing is near', () => {
    expect(nearest('frobnicate', verbs)).toBeNull();
    expect(nearest('x', verbs)).toBeNull();
    expect(nearest('anything', [])).toBeNull();
  });

  it('counts a swap of neighbours as one edit', () => {
    expect(editDistance('lsit', 'list')).toBe(1);
    expect(editDistance('', 'list')).toBe(4);
    expect(editDistance('list', 'list')).toBe(0);
  });
});
