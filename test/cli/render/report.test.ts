import { describe, expect, it } from 'vitest';
import { preflightLines } from '../../../cli/render/preflight.js';
import { reportLines } from '../../../cli/render/report.js';
import { displayWidth, type Page, styleFor } from '../../../cli/render/style.js';
import type { PreflightReport } from '../../../migrate/index.js';
import { scriptedReport } from '../support/scriptedMigration.js';

const page: Page = { style: styleFor({}, {}), textWidth: 80, tableWidth: Number.POSITIVE_INFINITY };

const shown = (change: Parameters<typeof scriptedReport>[0] = {}) =>
  reportLines(scriptedReport(change), page).join('\n');

const nothingMoved = {
  phases: [],
  bytes: { wire: 0, stream: 0, restored: 0 },
  pages: { seen: 0, zero: 0, teleported: 0, sent: 0, mismatched: 0, faulted: 0 },
  agent: null,
  link: { connections: 0, rttMs: 0, reconnects: 0 },
  faults: null,
  verified: null,
} as const;

describe('the report of a migration that moved the guest', () => {
  it('says first where the guest is, then how long it took', () => {
    expect(shown()).toMatch(/^✔ vm1 runs on hostB: moved in 2\.31 s, downtime 287 ms\n/);
    expect(shown()).toMatch(/downtime +287 ms +the guest stood still/);
  });

  it('says what was not sent, and why it was fast', () => {
    expect(shown()).toMatch(/zero +148,700 +581 MiB +57 % +not sent/);
    expect(shown()).toMatch(/teleported +102,400 +400 MiB +39 % +not sent: read from the disk on hostB/);
    expect(shown()).toMatch(/sent +11,300 +44\.1 MiB +4 %/);
    expect(shown()).toMatch(/mismatched +12 .*sent after all/);
    expect(shown()).toMatch(/41\.2 MB crossed the network for 1\.07 GB of memory \(4 %\)/);
  });

  it('draws when each phase ran', () => {
    expect(shown()).toMatch(/preflight +120 ms {2}█/);
    expect(shown()).toMatch(/release source +205 ms +█+$/m);
  });

  it('says what the agent skipped, most first, and that all pages were compared', () => {
    expect(shown().replace(/\s+/g, ' ')).toContain(
      '102,812 cached pages found in 45 ms (2 scans); skipped: dirty 120, deleted 3',
    );
    expect(shown()).toContain('the digests of all pages agree');
  });

  it('fits a narrow terminal', () => {
    const narrow: Page = { style: page.style, textWidth: 40, tableWidth: 40 };
    const lines = reportLines(
      scriptedReport({ ...nothingMoved, ...scriptedReport(), id: 'vm1-7f3a', startedAt: '' }),
      narrow,
    );
    for (const line of lines) expect(displayWidth(line), line).toBeLessThanOrEqual(40);
  });
});

describe('the report of one that did not', () => {
  it('says where the guest is, what happened, and what to do next', () => {
    const text = shown({
      ...nothingMoved,
      result: 'failed',
      vmLocation: 'source',
      error: {
        code: 'VMMIG_LINK_CONNECT',
        message: 'hostB refused\x1b[2J port 49152',
        phase: 'precopy',
        retryable: true,
      },
    });
    expect(text).toMatch(/^✖ failed: vm1 runs on hostA, as before\n/);
    expect(text).toContain('VMMIG_LINK_CONNECT during precopy');
    expect(text).toContain('hostB refused?[2J port 49152');
    expect(text).toMatch(/What to do: .*firewall/s);
    expect(text).not.toMatch(/NaN|crossed the network|downtime/);
  });

  it('lists every finding with its remedy', () => {
    const finding = (code: string) => ({
      severity: 'refuse' as const,
      code,
      message: `${code} is wrong`,
      remedy: `mend ${code}`,
    });
    const text = shown({ ...nothingMoved, result: 'refused', findings: [finding('A'), finding('B')] });
    for (const code of ['A', 'B']) {
      expect(text).toContain(`✖ ${code} is wrong`);
      expect(text).toContain(`→ mend ${code}`);
    }
  });

  it.each([
    ['cancelled', /cancelled: vm1 runs on hostA, as before/],
    ['unknown', /unknown where vm1 runs: the source on hostA is kept paused/],
    ['interrupted', /vm1 runs on hostB and still needs memory from hostA/],
  ] as const)('says so when it was %s', (result, headline) => {
    expect(shown({ result }).split('\n\n')[0]!.replace(/\n/g, ' ')).toMatch(headline);
  });
});

describe('what preflight found', () => {
  const ready: PreflightReport = {
    schema: 'vmmig.preflight/1',
    vm: 'vm1',
    from: 'hostA',
    to: 'hostB',
    mode: 'teleport',
    result: 'ready',
    error: null,
    findings: [],
    estimate: { memoryBytes: 2 ** 30, teleportableBytes: 2 ** 29, pageCacheBytes: null, rttMs: 40 },
  };

  it('says that the guest could move, and what need not be sent', () => {
    const text = preflightLines(ready, page).join('\n');
    expect(text).toContain('✔ ready: teleport of vm1 from hostA to hostB');
    expect(text.replace(/\s+/g, ' ')).toContain(
      '1.00 GiB of memory; 512 MiB (50 %) is page cache that need not be sent',
    );
  });

  it('says why a host is out of reach', () => {
    const error = { code: 'VMMIG_SSH_UNREACHABLE', message: 'no route', phase: 'preflight', retryable: true } as const;
    const text = preflightLines({ ...ready, result: 'unreachable', error, estimate: null }, page).join('\n');
    expect(text).toMatch(/✖ out of reach.*VMMIG_SSH_UNREACHABLE.*no route/s);
  });
});
