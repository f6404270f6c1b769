import { describe, expect, test } from 'vitest';
import { checkHosts } from '../../migrate/hostFindings.js';
import type { Prepared } from '../../migrate/prepared.js';

interface Host {
  readonly version?: string;
  readonly offsetMs?: number;
  readonly rttMs?: number;
}

const side = (name: string, { version = '0.1.0', offsetMs = 0, rttMs = 10 }: Host) =>
  ({
    host: { name },
    rpc: { greeted: Promise.resolve({ version }) },
    clock: Promise.resolve({ offsetMs, rttMs }),
  }) as unknown as Prepared['source'];

const judged = async (source: Host, destination: Host) =>
  await checkHosts({ source: side('hostA', source), destination: side('hostB', destination) });

describe('two hosts', () => {
  test('that agree are found fault with in nothing', async () => {
    expect(await judged({}, {})).toEqual([]);
    expect(await judged({ offsetMs: 90_000 }, { offsetMs: 90_400 })).toEqual([]);
  });

  test('must have the same vmmig', async () => {
    expect(await judged({}, { version: '0.2.0' })).toMatchObject([
      { severity: 'refuse', code: 'VMMIG_VERSION_MISMATCH', message: 'hostA has vmmig 0.1.0 and hostB has 0.2.0' },
    ]);
  });

  test('had better have the same time', async () => {
    expect(await judged({ offsetMs: 1_000 }, { offsetMs: -2_000 })).toMatchObject([
      {
        severity: 'warn',
        code: 'VMMIG_CLOCK_SKEW',
        message: expect.stringMatching(/^the clock of hostB is 3.0 s behind/),
      },
    ]);
    expect(await judged({}, { offsetMs: 900 })).toMatchObject([{ message: expect.stringMatching(/0.90 s ahead of/) }]);
  });

  test('are not suspected of what a slow network may have made up', async () => {
    expect(await judged({ rttMs: 800 }, { offsetMs: 1_000, rttMs: 800 })).toEqual([]);
  });

  test('are told of everything at once, each with what to do', async () => {
    const findings = await judged({ version: '0.2.0' }, { offsetMs: -60_000 });
    expect(findings.map(({ code }) => code)).toEqual(['VMMIG_VERSION_MISMATCH', 'VMMIG_CLOCK_SKEW']);
    for (const { remedy } of findings) expect(remedy).not.toBe('');
  });
});
