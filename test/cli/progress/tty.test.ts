import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { frame, stackedBar } from '../../../cli/progress/frame.js';
import { advance, initialState, type ProgressState } from '../../../cli/progress/state.js';
import { TtyProgress } from '../../../cli/progress/tty.js';
import { displayWidth, styleFor } from '../../../cli/render/style.js';
import type { ProgressEvent } from '../../../migrate/progress.js';
import {
  course,
  phaseEvent,
  pullSample,
  sampleEvent,
  scriptedReport,
  startEvent,
} from '../support/scriptedMigration.js';
import { ScreenStream, sinkFor } from '../support/terminal.js';

const uncoloured = styleFor({ LANG: 'C.UTF-8' }, {});

function stateAfter(events: Iterable<ProgressEvent>): ProgressState {
  let state = initialState;
  for (const event of events) state = advance(state, event);
  return state;
}

function halfway(): ProgressState {
  return stateAfter([
    startEvent,
    phaseEvent('preflight', 'begin', 0),
    phaseEvent('preflight', 'end', 120),
    phaseEvent('precopy', 'begin', 130),
    sampleEvent(2000, 0.5),
  ]);
}

describe('a frame', () => {
  it('says who goes where, what is done, what runs, and how much is left', () => {
    const text = frame(halfway(), 3_400, { columns: 121, rows: 24 }, uncoloured).join('\n');
    expect(text).toMatch(/vm1 {2}hostA → hostB\s+0:03/);
    expect(text).toMatch(/✔ preflight .*● precopy .*○ verify/);
    expect(text).toMatch(/memory .* 50 % {2}512 MiB of 1\.00 GiB/);
    expect(text).toMatch(/restored .* 75 % {2}154 MiB of 205 MiB/);
    expect(text).toMatch(/teleported 205 MiB .*sent 51\.2 MiB .*zero 256 MiB .*restored 154 MiB/);
    expect(text).toMatch(/wire 20\.0 MB at 198 Mbit\/s · dirty 2\.10 MiB\/s · left 512 MiB · ETA 2 s/);
  });

  it('names the phase and its number where the list of phases does not fit', () => {
    const lines = frame(halfway(), 0, { columns: 60, rows: 24 }, uncoloured);
    expect(lines[1]).toBe('● precopy (phase 4 of 8)');
  });

  it('says of a guest whose memory is being pulled where it runs, what it still needs, and how long it waits', () => {
    const events = [{ ...startEvent, mode: 'switch' } as const, phaseEvent('pull', 'begin', 100)];
    const text = frame(stateAfter([...events, pullSample(3100)]), 3_100, { columns: 121, rows: 24 }, uncoloured).join(
      '\n',
    );
    expect(text).toMatch(/● pull/);
    expect(text).not.toMatch(/restore|verify|release source/);
    expect(text).toMatch(/^runs on hostB since 0:03, still needs 123 MiB from hostA$/m);
    expect(text).toMatch(/there .* 75 % {2}768 MiB of 1\.00 GiB/);
    expect(text).toMatch(/faults 212 a second · p50 41 ms, p90 44 ms, p99 80 ms, longest 120 ms · waiting for 2/);
    expect(text).not.toMatch(/link is lost/);
    const lost = stateAfter([...events, pullSample(3100, { isConnected: false })]);
    expect(frame(lost, 0, { columns: 121, rows: 24 }, uncoloured).join('\n')).toMatch(/the link is lost/);
    for (let columns = 1; columns <= 130; columns++)
      for (const line of frame(lost, 1000, { columns, rows: 24 }, uncoloured))
        expect(displayWidth(line)).toBeLessThanOrEqual(Math.max(1, columns - 1));
  });

  it('fits every size of terminal', () => {
    for (let columns = 1; columns <= 200; columns++) {
      for (const rows of [2, 5, 24]) {
        const lines = frame(halfway(), 1000, { columns, rows }, uncoloured);
        expect(lines.length).toBeLessThan(rows);
        for (const line of lines) expect(displayWidth(line)).toBeLessThanOrEqual(Math.max(1, columns - 1));
      }
    }
  });

  it('leaves out what is not known yet', () => {
    const state = stateAfter([startEvent, phaseEvent('precopy', 'begin', 0), sampleEvent(100, 0.1)]);
    const text = frame(state, 0, { columns: 100, rows: 24 }, uncoloured).join('\n');
    expect(text).not.toMatch(/ETA|dirty|null|NaN/);
    expect(frame(initialState, 0, { columns: 80, rows: 24 }, uncoloured).join('\n')).toMatch(/^vmmig/);
  });

  it('is ASCII where the locale is', () => {
    const ascii = styleFor({ LANG: 'C' }, {});
    expect(frame(halfway(), 0, { columns: 121, rows: 24 }, ascii).join('\n')).toMatch(/^[\x20-\x7e\n]*$/);
  });
});

describe('a bar', () => {
  it('has exactly its cells, however its parts round', () => {
    for (let cells = 1; cells < 60; cells++) {
      const parts = [1, 1, 1].map((value) => ({ value, glyph: 'x', paint: (text: string) => text }));
      expect(stackedBar(parts, 3, cells, uncoloured)).toBe('x'.repeat(cells));
      expect(stackedBar(parts, 7, cells, uncoloured)).toHaveLength(cells);
    }
  });
});

describe('progress on a terminal', () => {
  it('redraws in place and leaves nothing of itself behind', () => {
    const stream = new ScreenStream(100);
    const sink = sinkFor(stream);
    sink.write('$ vmmig teleport vm1 --to hostB\n');
    using progress = new TtyProgress(sink);
    for (const event of course()) progress.show(event);
    expect(stream.screen).toEqual(['$ vmmig teleport vm1 --to hostB', '▲ the guest writes fast']);
  });

  it('shows the newest state, once, after many events', async () => {
    const stream = new ScreenStream(100);
    using progress = new TtyProgress(sinkFor(stream));
    progress.show(startEvent);
    progress.show(phaseEvent('precopy', 'begin', 0));
    for (let step = 0; step <= 100; step++) progress.show(sampleEvent(step * 10, step / 200));
    await sleep(250);
    expect(stream.screen.filter((line) => line.startsWith('memory'))).toHaveLength(1);
    expect(stream.screen.join('\n')).toContain('512 MiB of 1.00 GiB');
  });

  it('draws no more than ten times a second', async () => {
    const stream = new ScreenStream(100);
    using progress = new TtyProgress(sinkFor(stream));
    progress.show(startEvent);
    const until = performance.now() + 500;
    for (let step = 0; performance.now() < until; step++) {
      progress.show(sampleEvent(step, (step % 100) / 100));
      await sleep(2);
    }
    expect(stream.written.length).toBeLessThanOrEqual(7);
  });

  it.each([30, 60, 140])('survives a window resized from 100 to %i columns', async (columns) => {
    const stream = new ScreenStream(100);
    const sink = sinkFor(stream);
    sink.write('before\n');
    using progress = new TtyProgress(sink);
    for (const event of [startEvent, phaseEvent('precopy', 'begin', 0), sampleEvent(2000, 0.5)]) progress.show(event);
    await sleep(150);
    stream.resize(columns);
    progress.show(sampleEvent(2100, 0.6));
    await sleep(150);
    expect(stream.screen[0]).toBe('before');
    expect(stream.screen[1]).toMatch(/vm1/);
    expect(stream.screen.filter((line) => line.startsWith('memory'))).toHaveLength(1);
    progress.show({ type: 'end', report: scriptedReport() });
    expect(stream.screen).toEqual(['before']);
  });

  it('puts what has to be said above itself', async () => {
    const stream = new ScreenStream(80);
    using progress = new TtyProgress(sinkFor(stream));
    progress.show(startEvent);
    progress.note('Cancelling: vm1 stays on hostA.');
    expect(stream.screen[0]).toBe('Cancelling: vm1 stays on hostA.');
    expect(stream.screen[1]).toMatch(/^vm1 {2}hostA → hostB/);
  });

  it('lets no text from a host or guest drive the terminal', () => {
    const stream = new ScreenStream(80);
    using progress = new TtyProgress(sinkFor(stream));
    progress.show({ ...startEvent, vm: 'vm\x1b]0;owned\x07', to: '\x1b[2Jhost' } as ProgressEvent);
    progress.show({ type: 'notice', severity: 'warn', atMs: 0, code: 'X', message: 'a\x1b[Hb' });
    const written = stream.written.join('');
    for (const sequence of ['\x1b]', '\x1b[2J', '\x1b[H', '\x07']) expect(written).not.toContain(sequence);
  });
});
