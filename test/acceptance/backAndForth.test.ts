/** No page is ever stale: guests that verify their own memory and files, moved again and again. */
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { expectNothingLeft, fastWan, Guest, isFull, useLab } from './rig.js';

describe.each([
  { qemu: '7.2', teleports: isFull ? 10 : 5, switches: isFull ? 10 : 1 },
  { qemu: '10.0', teleports: isFull ? 10 : 2, switches: isFull ? 10 : 1 },
] as const)('In QEMU $qemu, a guest that checks its memory and its files all the time', (how) => {
  const { qemu, teleports, switches } = how;
  let guest: Guest;

  useLab({ ...fastWan, qemu });

  beforeAll(async () => {
    guest = await Guest.start('vm1', {
      memoryMiB: 192,
      data: { contents: 'random', filesMiB: 16, freeMiB: 64 },
    });
    await guest.run('fill-cache; mkdir -p /data/w; pattern start 16; fswriter start /data/w 8');
  });

  async function moveBy(modes: readonly ('teleport' | 'switch')[]): Promise<void> {
    let passes = 0;
    let rounds = 0;
    await guest.run('pattern pace 1000');
    for (const mode of modes) {
      await sleep(500);
      await guest[mode]();
      const [, pass, patternErrors] = /passes (\d+) errors (\d+)/.exec(await guest.run('pattern status'))!;
      const [, round, fileErrors] = /rounds (\d+) errors (\d+)/.exec(await guest.run('fswriter status'))!;
      expect([patternErrors, fileErrors]).toEqual(['0', '0']);
      passes = Number(pass);
      rounds = Number(round);
    }
    // Everything that was there during the last move is verified at least once more, now as fast as the guest can.
    await guest.run('pattern pace');
    const state = async (tool: string) =>
      Number(/(?:passes|rounds) (\d+) errors 0 /.exec(await guest.run(`${tool} status`))?.[1]);
    await expect.poll(() => state('pattern'), { timeout: 30_000 }).toBeGreaterThan(passes + 1);
    await expect.poll(() => state('fswriter'), { timeout: 30_000 }).toBeGreaterThan(rounds + 1);
    expect(await guest.run('checksum')).toMatch(/failed 0$/);
    await expectNothingLeft([guest]);
  }

  const timeout = (moves: number) => ({ timeout: 60_000 + moves * 30_000 });

  it(`moves by teleport ${teleports} times, back and forth, without an error`, timeout(teleports), () =>
    moveBy(Array(teleports).fill('teleport')),
  );

  // The last one shows that the other mode takes over from where this one ends.
  it(`moves by switch, and by teleport after it, ${switches + 1} times without an error`, timeout(switches + 1), () =>
    moveBy([...Array(switches).fill('switch'), 'teleport']),
  );
});
