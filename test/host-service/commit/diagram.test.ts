import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { destinationTable } from '../../../host-service/commit/destination.js';
import { sourceTable } from '../../../host-service/commit/source.js';

/** `from --> to: event, event`, for everything that changes the state. */
function arrowsOf(table: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>): string[] {
  const events = new Map<string, string[]>();
  for (const [from, row] of Object.entries(table)) {
    for (const [event, [to]] of Object.entries(row)) {
      if (to === from) continue;
      const arrow = `${from} --> ${to}`;
      events.set(arrow, [...(events.get(arrow) ?? []), event]);
    }
  }
  return [...events].map(([arrow, names]) => `${arrow}: ${names.join(', ')}`).sort();
}

describe('The state diagrams in ARCHITECTURE.md', () => {
  it('are the tables', async () => {
    const text = await readFile(new URL('../../../ARCHITECTURE.md', import.meta.url), 'utf8');
    const diagrams = [...text.matchAll(/```mermaid\nstateDiagram-v2\n([\s\S]*?)```/g)].map(([, body]) =>
      body!
        .split('\n')
        .map((line) => line.trim())
        .filter((line) => line !== '' && !line.includes('[*]'))
        .sort(),
    );
    expect(diagrams).toEqual([arrowsOf(sourceTable), arrowsOf(destinationTable)]);
  });
});
