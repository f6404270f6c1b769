import { mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { history, readReport, showReport } from '../../migrate/history.js';
import { Journal, readJournal } from '../../migrate/journal.js';
import { newMigrationId, stateDirectory } from '../../migrate/stateDirectory.js';
import { reportOf, useStateDirectory } from './temporary.js';

const state = useStateDirectory();

async function keep(id: string, vm: string): Promise<void> {
  await using journal = await Journal.open(id);
  await journal.writeReport(reportOf({ id, vm }));
}

describe('the history', () => {
  test('is empty before the first migration', async () => {
    expect(await history()).toEqual([]);
    await expect(showReport('vm1')).rejects.toMatchObject({ code: 'VMMIG_USAGE_NO_REPORT' });
  });

  test('has the latest report first, and finds one by its id or by its guest', async () => {
    await keep('20261122-050000-aaaaaa', 'vm1');
    await keep('20261122-060000-aaaaaa', 'vm2');
    await keep('20261121-230000-ffffff', 'vm1');
    expect((await history()).map(({ id }) => id.slice(0, 15))).toEqual([
      '20261122-060000',
      '20261122-050000',
      '20261121-230000',
    ]);
    expect((await showReport('vm1')).id).toBe('20261122-050000-aaaaaa');
    expect((await showReport('20261121-230000-ffffff')).vm).toBe('vm1');
  });

  test('leaves out migrations that go on, that left no report, or a damaged one', async () => {
    await using going = await Journal.open('20261122-070000-aaaaaa');
    await going.write('begin');
    await keep('20261122-060000-aaaaaa', 'vm1');
    const damaged = join(state.path, 'migrations', '20261122-080000-aaaaaa');
    await mkdir(damaged);
    await writeFile(join(damaged, 'report.json'), '{"schema": "vmmig.rep');
    await writeFile(join(state.path, 'migrations', 'stray'), '');
    expect((await history()).map(({ id }) => id)).toEqual(['20261122-060000-aaaaaa']);
    expect(await readReport('20261122-070000-aaaaaa')).toBeNull();
  });

  test('looks for reports nowhere else, whatever it is asked for', async () => {
    await mkdir(join(state.path, 'secret'), { recursive: true });
    await writeFile(join(state.path, 'secret', 'report.json'), JSON.stringify(reportOf()));
    for (const asked of ['../secret', '..', '/etc', '', 'a b'])
      await expect(showReport(asked)).rejects.toMatchObject({ code: 'VMMIG_USAGE_NO_REPORT' });
  });
});

describe('a journal', () => {
  test('and its report are for their owner alone, and whole or not at all', async () => {
    await keep('20261122-060000-aaaaaa', 'vm1');
    const directory = join(state.path, 'migrations', '20261122-060000-aaaaaa');
    expect((await readdir(directory)).sort()).toEqual(['journal.ndjson', 'report.json']);
    expect((await stat(directory)).mode & 0o777).toBe(0o700);
    for (const name of await readdir(directory)) expect((await stat(join(directory, name))).mode & 0o777).toBe(0o600);
  });

  test('has its entries in the order in which they were written, all of them', async () => {
    const journal = await Journal.open('20260101-000000-00000a');
    const numbers = Array.from({ length: 200 }, (_, at) => at);
    const writing = numbers.map((number) => journal.write('phase', { number }));
    await journal[Symbol.asyncDispose]();
    await Promise.all(writing);
    expect((await readJournal('20260101-000000-00000a')).map(({ number }) => number)).toEqual(numbers);
  });

  test('is continued by the next one with the same id', async () => {
    for (const event of ['begin', 'end'] as const) {
      await using journal = await Journal.open('again');
      await journal.writeDurably(event, { result: 'moved' });
    }
    const text = await (await import('node:fs/promises')).readFile(
      join(state.path, 'migrations/again/journal.ndjson'),
      'utf8',
    );
    expect(
      text
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).event),
    ).toEqual(['begin', 'end']);
  });
});

describe('the state directory', () => {
  test('is VMMIG_STATE_DIR, else in the XDG state directory, else under the home', () => {
    expect(stateDirectory({ VMMIG_STATE_DIR: '/a', XDG_STATE_HOME: '/b', HOME: '/c' })).toBe('/a');
    expect(stateDirectory({ VMMIG_STATE_DIR: '', XDG_STATE_HOME: '/b', HOME: '/c' })).toBe('/b/vmmig');
    expect(stateDirectory({ HOME: '/c' })).toBe('/c/.local/state/vmmig');
  });

  test('gives ids that sort by time and do not repeat', () => {
    const early = newMigrationId(new Date('2026-11-22T05:16:04.999Z'));
    expect(early).toMatch(/^20261122-051604-[0-9a-f]{6}$/);
    expect(newMigrationId(new Date('2026-11-22T05:16:05.000Z')) > early).toBe(true);
    expect(new Set(Array.from({ length: 200 }, () => newMigrationId(new Date(0)))).size).toBeGreaterThan(198);
  });
});
