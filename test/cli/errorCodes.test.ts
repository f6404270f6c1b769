import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { errorCodes, errorDocument, explainError } from '../../migrate/errorCodes.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const folders = [
  'cli',
  'migrate',
  'host-service',
  'hypervisor',
  'hosts',
  'relay',
  'stream',
  'qmp',
  'guest-agent',
  'disk',
  'pager',
  'lab',
];

/** Environment variables share the prefix. */
const environmentVariables = ['VMMIG_INVENTORY', 'VMMIG_STATE_DIR', 'VMMIG_CACHE_DIR', 'VMMIG_LAB_DIR', 'VMMIG_DEBUG'];

/** Every `VMMIG_…` in a source folder, with the files that mention it. */
async function mentioned(): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>();
  for (const folder of folders) {
    const files = await readdir(join(root, folder), { recursive: true }).catch(() => []);
    for (const file of files.filter((name) => name.endsWith('.ts') && !name.includes('node_modules'))) {
      if (folder === 'migrate' && file.startsWith('errorCodes')) continue;
      const text = await readFile(join(root, folder, file), 'utf8');
      // A name that ends with "_" is a prefix that some code compares with.
      for (const [code] of text.matchAll(/\bVMMIG_[A-Z0-9_]*[A-Z0-9]\b/g)) {
        found.set(code, [...(found.get(code) ?? []), `${folder}/${file}`]);
      }
    }
  }
  return found;
}

describe('the list of error codes', () => {
  it('has every code that any module uses', async () => {
    const missing = [...(await mentioned())].filter(
      ([code]) => explainError(code) === null && !environmentVariables.includes(code),
    );
    expect(missing).toEqual([]);
  });

  it('has no code that nothing uses', async () => {
    const used = await mentioned();
    expect(Object.keys(errorCodes).filter((code) => !used.has(code))).toEqual([]);
  });

  it('says in whole sentences what happened, where the guest is and what to do', () => {
    for (const help of Object.values(errorCodes)) {
      for (const text of [help.summary, help.whereIsTheGuest, help.nextStep]) expect(text).toMatch(/^.{10,}[.]$/);
    }
  });

  it('is docs/errors.md, word for word', async () => {
    expect(await readFile(join(root, 'docs/errors.md'), 'utf8')).toBe(errorDocument());
  });

  it('knows no code that only looks like a property of every object', () => {
    expect(explainError('constructor')).toBeNull();
    expect(explainError('__proto__')).toBeNull();
  });
});
