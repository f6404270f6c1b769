import { describe, expect, it } from 'vitest';
import { statusLines } from '../../../cli/render/status.js';
import { displayWidth, type Page, styleFor } from '../../../cli/render/style.js';
import type { MigrationStatus, StatusReport } from '../../../migrate/index.js';
import { faultStatistics } from '../support/scriptedMigration.js';

const page: Page = { style: styleFor({}, {}), textWidth: 100, tableWidth: Number.POSITIVE_INFINITY };
const nowMs = Date.parse('2026-11-22T05:20:00.000Z');

const pulling: MigrationStatus = {
  id: '20261122-051604-3fa9c1',
  vm: 'vm1',
  mode: 'switch',
  from: 'hostA',
  to: 'hostB',
  phase: 'pull',
  vmLocation: 'destination',
  beganAt: '2026-11-22T05:19:00.000Z',
  pid: null,
  remaining: { bytes: 123 * 2 ** 20, missingPages: 40_000 },
  faults: faultStatistics,
  link: { isConnected: true, interruptedSince: null, rttMs: 40, reconnects: 1 },
  store: { memoryBytes: 45 * 2 ** 20, spilledBytes: 0 },
  exposedSince: '2026-11-22T05:19:18.000Z',
  problems: [],
};

function shown(migrations: readonly MigrationStatus[], change: Partial<StatusReport> = {}, vm?: string): string {
  const report = { schema: 'vmmig.status/1', migrations, silent: [], ...change } as const;
  return statusLines(report, vm, nowMs, page).join('\n');
}

describe('The status', () => {
  it('says plainly when nothing goes on', () => {
    expect(shown([])).toBe('No guest is being moved.');
    expect(shown([], {}, 'vm1')).toBe('vm1 is not being moved.');
  });

  it('does not say so for hosts that it could not ask', () => {
    const text = shown([], { silent: [{ host: 'hostB', reason: 'no route' }] });
    expect(text).toMatch(/as far as the hosts below do not know better/);
    expect(text).toMatch(/hostB could not be asked: no route/);
  });

  it('says where the guest is, what it still needs, how long it waits, and whether the link is up', () => {
    const text = shown([pulling]);
    expect(text).toMatch(/^vm1 {2}hostA → hostB {2}switch · pull · for 1:00$/m);
    expect(text).toMatch(/guest +runs on hostB since 0:42, still needs 123 MiB from hostA; 40,000 pages are not there/);
    expect(text.replace(/\s+/g, ' ')).toMatch(
      /faults 212 a second, 1,204 so far: p50 41 ms, p90 44 ms, p99 80 ms, longest 120 ms; waiting for 2 now/,
    );
    expect(text).toMatch(/source +1,000: p50 42 ms/);
    expect(text).toMatch(/link +connected, round trip 40 ms, connected again once/);
    expect(text).toMatch(/kept +45\.0 MiB of memory on hostA/);
    expect(text).toMatch(/command +none on this machine/);
  });

  it('says for how long the link is lost, and what is wrong', () => {
    const link = { isConnected: false, interruptedSince: '2026-11-22T05:19:50.000Z', rttMs: 40, reconnects: 0 };
    const text = shown([{ ...pulling, link, problems: ['the service on hostB has ended'] }]);
    expect(text).toMatch(/link +lost for 0:10, connecting again/);
    expect(text).toMatch(/✖ the service on hostB has ended/);
  });

  it('fits a narrow terminal, and lets no host drive it', () => {
    const narrow: Page = { style: page.style, textWidth: 50, tableWidth: 50 };
    const hostile = { ...pulling, vm: 'vm\x1b[2J', problems: ['a\x1b]0;owned\x07b'] };
    const report: StatusReport = { schema: 'vmmig.status/1', migrations: [hostile], silent: [] };
    const lines = statusLines(report, undefined, nowMs, narrow);
    for (const line of lines) expect(displayWidth(line), line).toBeLessThanOrEqual(50);
    expect(lines.join('')).not.toContain('\x1b');
  });
});
