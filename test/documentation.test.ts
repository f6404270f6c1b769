/** The documents say what is so: their links lead somewhere, their promises have tests, their tables are the rules. */
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../', import.meta.url));
const read = (path: string) => readFile(join(root, path), 'utf8');

async function documents(): Promise<string[]> {
  const markdown = async (directory: string) =>
    (await readdir(join(root, directory))).filter((name) => name.endsWith('.md')).map((name) => join(directory, name));
  return [...(await markdown('.')), ...(await markdown('docs'))];
}

/** What a heading is called in a link. */
function anchors(text: string): string[] {
  return [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  );
}

describe('the documentation', () => {
  it('has no relative link that leads nowhere', async () => {
    const broken: string[] = [];
    for (const document of await documents()) {
      for (const [, target] of (await read(document)).matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^[a-z]+:/.test(target!)) continue;
        const [path = '', anchor] = target!.split('#');
        const file = path === '' ? document : join(dirname(document), path);
        const isThere = existsSync(join(root, file)) && (!anchor || anchors(await read(file)).includes(anchor));
        if (!isThere) broken.push(`${document}: ${target}`);
      }
    }
    expect(broken).toEqual([]);
  });

  it('names no file of the project that does not exist', async () => {
    const missing: string[] = [];
    for (const document of [
      'ARCHITECTURE.md',
      'SPECIFICATION.md',
      'README.md',
      'docs/benchmarks.md',
      'docs/link-protocol.md',
    ]) {
      for (const [, path] of (await read(document)).matchAll(/`((?:\w[\w-]*\/)+[\w.-]+\.(?:ts|c|json|mjs))`/g))
        if (!path!.startsWith('dist/') && !existsSync(join(root, path!))) missing.push(`${document}: ${path}`);
    }
    expect(missing).toEqual([]);
  });
});

describe('the specification', () => {
  it('has a test or benchmark for every promise', async () => {
    const rows = (await read('SPECIFICATION.md')).split('\n').filter((line) => /^\| (?!promise)[^-]/.test(line));
    expect(rows.length).toBeGreaterThan(40);
    const without = rows.filter((row) => !/`(test|bench)\/[\w/.-]+\.ts`/.test(row));
    expect(without).toEqual([]);
  });
});

describe('the module table', () => {
  it('is what the import rules say', async () => {
    interface Rule {
      readonly name: string;
      readonly comment?: string;
    }
    const { forbidden } = createRequire(import.meta.url)(join(root, '.dependency-cruiser.cjs')) as {
      forbidden: Rule[];
    };
    const rules = new Map(
      forbidden
        .filter(({ name }) => name.endsWith('-imports'))
        .map(({ name, comment }) => [
          name.replace(/-imports$/, ''),
          comment!.replace(/^.* may import /, '').replace('no other module', ''),
        ]),
    );
    const architecture = await read('ARCHITECTURE.md');
    const table = new Map(
      [...architecture.matchAll(/^\| `([\w-]+)\/` \|.*\| *([^|]*?) *\|$/gm)].map(([, name, may]) => [
        name!,
        [...may!.matchAll(/`([\w-]+)`/g)].map(([, each]) => each).join(', '),
      ]),
    );
    table.delete('test');
    expect(table).toEqual(rules);
  });
});
