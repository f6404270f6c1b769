import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { VmmigError } from '../../migrate/errors.js';
import { readReport } from '../../migrate/history.js';
import { Journal } from '../../migrate/journal.js';
import type { ProgressEvent } from '../../migrate/progress.js';
import { Recorder } from '../../migrate/recorder.js';
import { start, useStateDirectory } from './temporary.js';

const state = useStateDirectory();

async function recording(): Promise<{ recorder: Recorder; journal: Journal; events: ProgressEvent[] }> {
  const journal = await Journal.open(start.id);
  const events: ProgressEvent[] = [];
  const recorder = new Recorder(start, journal, (event) => events.push(event), performance.now() - 500);
  return { recorder, journal, events };
}

async function entries(): Promise<Record<string, unknown>[]> {
  const text = await readFile(join(state.path, 'migrations', start.id, 'journal.ndjson'), 'utf8');
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

describe('the recorder', () => {
  test('tells the start at once, and the time since the command began', async () => {
    const { recorder, journal, events } = await recording();
    await using _ = journal;
    expect(events).toMatchObject([{ type: 'start', schema: 'vmmig.progress/1', ...start }]);
    expect(recorder.elapsedMs).toBeGreaterThanOrEqual(500);
    expect(recorder.phase).toBeNull();
  });

  test('tells, times and journals phases, which may overlap and nest', async () => {
    const { recorder, journal, events } = await recording();
    await using _ = journal;
    let endScan: () => void = () => {};
    const scan = recorder.during('scan', () => new Promise<void>((resolve) => (endScan = resolve)));
    const result = await recorder.during(
      'precopy',
      async () => {
        expect(recorder.phase).toBe('precopy');
        endScan();
        await scan;
        expect(recorder.phase).toBe('precopy');
        return 42;
      },
      (value) => `${value} pages`,
    );
    expect(result).toBe(42);
    expect(recorder.phase).toBeNull();
    const told = events.flatMap((event) => (event.type === 'phase' ? [`${event.state} ${event.name}`] : []));
    expect(told).toEqual(['begin scan', 'begin precopy', 'end scan', 'end precopy']);
    expect(events.at(-1)).toMatchObject({ detail: '42 pages' });
    const report = await recorder.finish('moved', 'destination', null);
    expect(report.phases.map(({ name }) => name)).toEqual(['scan', 'precopy']);
    const written = (await entries()).map(({ event, name, state }) => [event, name, state].filter(Boolean).join(' '));
    expect(written).toEqual(['phase scan begin', 'phase precopy begin', 'phase scan end', 'phase precopy end', 'end']);
  });

  test('keeps the first phase that failed, and passes its error on', async () => {
    const { recorder, journal, events } = await recording();
    await using _ = journal;
    const failure = new Error('no');
    const failing = recorder.during('precopy', () =>
      recorder.during('scan', async () => {
        throw failure;
      }),
    );
    await expect(failing).rejects.toBe(failure);
    await expect(
      recorder.during('verify', async () => {
        throw new Error('later');
      }),
    ).rejects.toThrow('later');
    expect(recorder.failedPhase).toBe('scan');
    expect(events.filter((event) => event.type === 'phase' && event.failed)).toHaveLength(3);
  });

  test('finishes with a report that is told, kept and returned', async () => {
    const { recorder, journal, events } = await recording();
    await using _ = journal;
    recorder.locatedAt('hostC');
    recorder.locatedAt('hostC');
    expect(events.filter(({ type }) => type === 'located')).toMatchObject([{ from: 'hostC' }]);
    recorder.facts = { ...recorder.facts, verified: true, downtimeMs: 77 };
    const error = new VmmigError('VMMIG_TIMEOUT', 'too slow', { phase: 'precopy', retryable: true });
    const report = await recorder.finish('failed', 'source', error);
    expect(report).toMatchObject({
      schema: 'vmmig.report/1',
      id: start.id,
      from: 'hostC',
      result: 'failed',
      vmLocation: 'source',
      error: { code: 'VMMIG_TIMEOUT', message: 'too slow', phase: 'precopy', retryable: true },
      verified: true,
      downtimeMs: 77,
    });
    expect(events.at(-1)).toEqual({ type: 'end', report });
    expect(await readReport(start.id)).toEqual(JSON.parse(JSON.stringify(report)));
    expect((await entries()).at(-1)).toMatchObject({ event: 'end', result: 'failed', vmLocation: 'source' });
  });

  test('has every field of the report even when nothing was learnt', async () => {
    const { recorder, journal } = await recording();
    await using _ = journal;
    const report = await recorder.finish('cancelled', 'source', null);
    for (const field of [
      'bytes',
      'pages',
      'agent',
      'link',
      'verified',
      'phases',
      'downtimeMs',
      'switchoverMs',
      'releasedMs',
    ])
      expect(report).toHaveProperty(field);
    expect(report.error).toBeNull();
    expect(Date.parse(report.startedAt)).toBeGreaterThan(0);
  });

  test('says in which phase a sample was taken', async () => {
    const { recorder, journal, events } = await recording();
    await using _ = journal;
    const sample = {
      totalPages: 1,
      pages: { zero: 0, teleported: 0, sent: 0, restored: 0, mismatched: 0 },
      bytes: { wire: 0, stream: 0, restored: 0 },
      wireBps: 0,
      dirtyBytesPerSecond: null,
      remainingBytes: 0,
      etaMs: null,
    };
    await recorder.during('verify', async () => recorder.sample(sample));
    expect(events.find(({ type }) => type === 'sample')).toMatchObject({ phase: 'verify' });
    recorder.notice('warn', 'VMMIG_X', 'look');
    expect(events.at(-1)).toMatchObject({ type: 'notice', severity: 'warn', code: 'VMMIG_X', message: 'look' });
  });
});
