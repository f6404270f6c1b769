import { execFile } from 'node:child_process';
import { chmod, mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeEach, describe, expect, it } from 'vitest';
import { decide, readDecision } from '../../../host-service/commit/decision.js';
import { migrationId, useRunDirectory } from './runDirectory.js';

const run = useRunDirectory();
const directory = () => join(run.path, migrationId);
beforeEach(() => mkdir(directory()));

describe('A decision', () => {
  it('is nothing before it is made, and stands from then on', async () => {
    expect(await readDecision(run.path, migrationId, 'source')).toBeNull();
    expect(await decide(run.path, migrationId, 'source', 'held')).toBe('held');
    expect(await decide(run.path, migrationId, 'source', 'kept')).toBe('held');
    expect(await readDecision(run.path, migrationId, 'source')).toBe('held');
  });

  it('is made by each role for itself', async () => {
    await decide(run.path, migrationId, 'source', 'held');
    expect(await decide(run.path, migrationId, 'destination', 'end')).toBe('end');
  });

  it('is one decision when many make it at once, and leaves no drafts', async () => {
    for (let round = 0; round < 10; round++) {
      const wishes = (['run', 'end', 'run', 'end'] as const).map((wish) =>
        decide(run.path, migrationId, 'destination', wish),
      );
      expect(new Set(await Promise.all(wishes)).size).toBe(1);
      expect(await readdir(directory())).toEqual(['decision-destination']);
      await rm(join(directory(), 'decision-destination'));
    }
  });

  it('is one decision when two processes make it at once', async () => {
    const module = new URL('../../../host-service/commit/decision.ts', import.meta.url).href;
    const root = fileURLToPath(new URL('../../../', import.meta.url));
    const made = (['run', 'end'] as const).map(async (wish) => {
      const script = `const { decide } = await import(${JSON.stringify(module)});
        process.stdout.write(await decide(${JSON.stringify(run.path)}, '${migrationId}', 'destination', '${wish}'));`;
      const args = ['--import', 'tsx', '--input-type=module', '--eval', script];
      return (await promisify(execFile)(process.execPath, args, { cwd: root })).stdout;
    });
    const [first, second] = await Promise.all(made);
    expect(first).toMatch(/^(run|end)$/);
    expect(second).toBe(first);
  });

  it.each(['', 'held', 'run\n', 'held\nkept\n', 'x'.repeat(100_000)])(
    'is not made of what holds none (%#)',
    async (content) => {
      await writeFile(join(directory(), 'decision-source'), content, { mode: 0o600 });
      const invalid = { code: 'VMMIG_LEDGER_INVALID' };
      await expect(readDecision(run.path, migrationId, 'source')).rejects.toMatchObject(invalid);
      await expect(decide(run.path, migrationId, 'source', 'kept')).rejects.toMatchObject(invalid);
    },
  );

  it('is not taken from a file that others can write', async () => {
    await decide(run.path, migrationId, 'source', 'held');
    await chmod(join(directory(), 'decision-source'), 0o666);
    await expect(readDecision(run.path, migrationId, 'source')).rejects.toMatchObject({ code: 'VMMIG_LEDGER_INVALID' });
  });

  it('fails where there is no directory for it', async () => {
    await rm(directory(), { recursive: true });
    const decided = decide(run.path, migrationId, 'source', 'held');
    await expect(decided).rejects.toMatchObject({ code: 'VMMIG_LEDGER_WRITE' });
  });
});
