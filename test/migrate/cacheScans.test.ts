import { describe, expect, test } from 'vitest';
import { CacheScans } from '../../migrate/cacheScans.js';
import { VmmigError } from '../../migrate/errors.js';
import { Journal } from '../../migrate/journal.js';
import type { ProgressEvent } from '../../migrate/progress.js';
import { Recorder } from '../../migrate/recorder.js';
import type { Side } from '../../migrate/sides.js';
import { start, useStateDirectory } from './temporary.js';

useStateDirectory();

const summary = { via: 'port', scanMs: 10, pages: 1000, runs: 3, disks: [], skipped: {} };

/** Scans of an agent that answers when, and what, the test says. */
async function scanning() {
  const journal = await Journal.open(start.id);
  const events: ProgressEvent[] = [];
  const recorder = new Recorder(start, journal, (event) => events.push(event), performance.now());
  const asked: { mode: string; answer: (summary: object) => void; fail: (error: Error) => void }[] = [];
  const request = (_method: string, { mode }: { mode: string }, { signal }: { signal: AbortSignal }) =>
    new Promise((answer, fail) => {
      asked.push({ mode, answer, fail });
      signal.addEventListener('abort', () => fail(signal.reason));
    });
  const over = new AbortController();
  const scans = new CacheScans({ rpc: { request } } as unknown as Side, recorder, over.signal);
  const codes = () => events.flatMap((event) => (event.type === 'notice' ? [event.code] : []));
  return { scans, recorder, asked, over, events, codes, [Symbol.asyncDispose]: () => journal[Symbol.asyncDispose]() };
}

describe('The scans of a migration', () => {
  test('ask for all at first, for what has changed from then on, and sum up for the report', async () => {
    await using scan = await scanning();
    const { scans, asked, recorder } = scan;
    scans.begin();
    expect([scans.isUnderWay, scans.mayAsk, scans.cachedPages]).toEqual([true, false, 0]);
    asked[0]!.answer(summary);
    await scans.over;
    expect([scans.isUnderWay, scans.mayAsk, scans.cachedPages]).toEqual([false, true, 1000]);
    scans.again();
    asked[1]!.answer({ ...summary, pages: 1200 });
    await scans.over;
    expect(asked.map(({ mode }) => mode)).toEqual(['full', 'changes']);
    expect(recorder.facts.agent).toMatchObject({ scanMs: 20, scans: 2, pages: 1200 });
  });

  test('that are given up end at once, cost nothing, and begin anew', async () => {
    await using scan = await scanning();
    const { scans, asked, events, codes } = scan;
    scans.begin();
    scans.giveUp();
    await scans.over;
    expect([scans.mayAsk, codes()]).toEqual([true, []]);
    expect(events.at(-1)).toMatchObject({ type: 'phase', name: 'scan', state: 'end' });
    scans.again();
    expect(asked.map(({ mode }) => mode)).toEqual(['full', 'full']);
    asked[1]!.answer(summary);
    await scans.over;
    expect(scans.cachedPages).toBe(1000);
  });

  test('of an agent that fails are told of once, and not tried again', async () => {
    await using scan = await scanning();
    const { scans, asked, codes } = scan;
    scans.begin();
    asked[0]!.fail(new VmmigError('VMMIG_AGENT_TIMEOUT', 'no answer'));
    await scans.over;
    expect([scans.mayAsk, codes()]).toEqual([false, ['VMMIG_AGENT_TIMEOUT']]);
  });

  test('end the migration with what is not the agent’s failure', async () => {
    await using scan = await scanning();
    const { scans, asked, over } = scan;
    scans.begin();
    asked[0]!.fail(new VmmigError('VMMIG_SSH_LOST', 'the session was lost'));
    await expect(scans.over).rejects.toMatchObject({ code: 'VMMIG_SSH_LOST' });
    scans.again();
    over.abort(new VmmigError('VMMIG_CANCELLED', 'by the operator'));
    await expect(scans.over).rejects.toMatchObject({ code: 'VMMIG_CANCELLED' });
  });
});
