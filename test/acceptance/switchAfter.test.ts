/** When a guest is switched, and what is there by then, is the operator's to say. */
import { beforeAll, describe, expect, it } from 'vitest';
import type { MigrationReport } from '../../migrate/index.js';
import { expectNothingLeft, fastWan, Guest, isFull, useLab } from './rig.js';

const memoryMiB = 320;
const holdMs = 5_000;

describe.each(isFull ? [false, true] : [false])('A guest that hardly writes (in a memory file: %s)', (sharedMemory) => {
  let guest: Guest;

  useLab(fastWan);

  beforeAll(async () => {
    guest = await Guest.start('vm1', { memoryMiB, sharedMemory, data: { contents: 'random', filesMiB: 60 } });
    await guest.run('fill-cache');
  });

  async function switchWith(...options: readonly string[]): Promise<MigrationReport> {
    const { report } = await guest.switch('--no-agent', ...options);
    expect(await guest.run('checksum')).toMatch(/failed 0$/);
    await expectNothingLeft([guest]);
    return report;
  }

  function precopyMs({ phases }: MigrationReport): number {
    return phases.find(({ name }) => name === 'precopy')!.ms;
  }

  it('stays where it is for so long, while its memory goes ahead', { timeout: 300_000 }, async () => {
    const report = await switchWith('--after', `${holdMs / 1000}s`, '--prefetch', '50%');
    expect(precopyMs(report)).toBeGreaterThanOrEqual(holdMs);
    expect(report.faults).toMatchObject({ waiting: 0 });
  });

  it.skipIf(!isFull)('is switched when nearly everything is there', { timeout: 300_000 }, async () => {
    const { faults } = await switchWith('--after', 'converged', '--prefetch', '100%');
    expect(faults!.answers.remote.count).toBeLessThan(200);
  });

  it.skipIf(!isFull)('is switched with nothing sent ahead that it uses', { timeout: 300_000 }, async () => {
    await switchWith('--prefetch', '0');
  });
});
