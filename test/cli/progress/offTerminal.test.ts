import { describe, expect, it } from 'vitest';
import { progressRenderer } from '../../../cli/progress/choose.js';
import { type ProgressKind, progressKinds } from '../../../cli/progress/renderer.js';
import { TtyProgress } from '../../../cli/progress/tty.js';
import type { StartEvent } from '../../../migrate/progress.js';
import { course, sampleEvent } from '../support/scriptedMigration.js';
import { ScreenStream, sinkFor, TextStream } from '../support/terminal.js';

function shown(kind: ProgressKind): string[] {
  const stream = new TextStream();
  using progress = progressRenderer(kind, sinkFor(stream));
  for (const event of course()) progress.show(event);
  return stream.lines;
}

describe('plain progress', () => {
  it('tells each phase as it begins and ends, with its time', () => {
    const lines = shown('plain');
    expect(lines[0]).toBe(' 0:00 starting ...');
    expect(lines[1]).toBe('vm1: teleport from hostA to hostB (vm1-20261122-045107-7f3a)');
    expect(lines).toContain(' 0:00 preflight took 120 ms');
    expect(lines).toContain(' 0:00 scan took 45 ms: 102,812 cached pages in 2 file systems');
    expect(lines).toContain(' 0:01 warning: the guest writes fast');
  });

  it('does not say that a guest comes from where it goes, and says where it was found', () => {
    const stream = new TextStream();
    using progress = progressRenderer('plain', sinkFor(stream));
    const [start] = course();
    progress.show({ ...(start as StartEvent), from: 'hostB' });
    progress.show({ type: 'located', from: 'hostC', atMs: 400 });
    expect(stream.lines.slice(1, 3)).toEqual([
      'vm1: teleport to hostB (vm1-20261122-045107-7f3a)',
      ' 0:00 found on hostC',
    ]);
  });

  it('writes one line per second while pages move', () => {
    const samples = shown('plain').filter((line) => / precopy .*: zero /.test(line));
    expect(samples).toHaveLength(5);
    expect(samples[2]).toBe(
      ' 0:02 precopy 50 %: zero 256 MiB, teleported 205 MiB, sent 51.2 MiB, restored 154 MiB; ' +
        'wire 20.0 MB at 198 Mbit/s; dirty 2.10 MiB/s; ETA 2 s',
    );
  });
});

describe('rawjson progress', () => {
  it('is every event as a line of JSON, and nothing else', () => {
    const stream = new TextStream();
    using progress = progressRenderer('rawjson', sinkFor(stream));
    const events = [...course()];
    for (const event of events) progress.show(event);
    progress.note('words for people');
    expect(stream.lines.map((line) => JSON.parse(line))).toEqual(JSON.parse(JSON.stringify(events)));
  });
});

describe('the choice of progress', () => {
  it('says nothing with none', () => {
    expect(shown('none')).toEqual(['']);
  });

  it.each(progressKinds)('writes no escape sequences off a terminal with %s', (kind) => {
    expect(shown(kind).join('\n')).not.toContain('\x1b');
  });

  it('animates on a terminal, and not on a dumb one', () => {
    using animated = progressRenderer('auto', sinkFor(new ScreenStream(80)));
    expect(animated).toBeInstanceOf(TtyProgress);
    const dumb = new ScreenStream(80);
    using plain = progressRenderer('tty', sinkFor(dumb, { TERM: 'dumb' }));
    plain.show(sampleEvent(0, 0.5));
    expect(dumb.written.join('')).toMatch(/^ 0:00 precopy/m);
    expect(dumb.written.join('')).not.toContain('\x1b');
  });

  it('uses no colours with NO_COLOR, and still animates', async () => {
    const stream = new ScreenStream(80);
    using progress = progressRenderer('auto', sinkFor(stream, { TERM: 'xterm', NO_COLOR: '1' }));
    progress.show(sampleEvent(0, 0.5));
    expect(progress).toBeInstanceOf(TtyProgress);
    const colours = stream.written
      .join('')
      .split('\x1b[')
      .filter((part) => /^[0-9;]*m/.test(part));
    expect(colours).toEqual([]);
  });
});
