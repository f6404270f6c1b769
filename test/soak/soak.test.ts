/**
 * Endurance: guests that verify themselves all the time are moved back and forth, modes, links and versions of QEMU mixed.
 * `npm run soak` alone runs this: it takes an hour.
 */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createDataDisk, type LabGuestOptions, type LabQemu, labPaths, setWan } from '../../lab/index.js';
import type { MigrationReport } from '../../migrate/index.js';
import { Pgbench, WebClient } from '../acceptance/debian/clients.js';
import { Database } from '../acceptance/debian/database.js';
import { expectNothingLeft, Guest, useLab } from '../acceptance/rig.js';

const moves = Number(process.env.VMMIG_SOAK_MOVES ?? 20);
const links = [
  { rttMs: 1, rateBps: 1e9 },
  { rttMs: 40, rateBps: 200e6 },
] as const;
const contents = { contents: 'random', filesMiB: 100, freeMiB: 200 } as const;

interface Course {
  readonly title: string;
  readonly qemu: LabQemu;
  readonly guest: LabGuestOptions;
  readonly disks: 1 | 2;
}

/** What a q35 machine has beyond 2 GiB lies above the hole in which its devices are. */
const courses: readonly Course[] = [
  { title: '1 GiB', qemu: '7.2', guest: { memoryMiB: 1024 }, disks: 1 },
  { title: '1 GiB in a memory file', qemu: '7.2', guest: { memoryMiB: 1024, sharedMemory: true }, disks: 1 },
  { title: '4 GiB, two processors, two disks', qemu: '10.0', guest: { memoryMiB: 4096, cpus: 2 }, disks: 2 },
  { title: '1 GiB, two processors', qemu: 'mixed', guest: { memoryMiB: 1024, cpus: 2 }, disks: 1 },
  { title: '8 GiB', qemu: 'mixed', guest: { memoryMiB: 8192 }, disks: 2 },
];

describe.each(courses)('A guest with $title, in QEMU $qemu', ({ qemu, guest: options, disks }) => {
  useLab({ ...links[0], qemu });

  it(`moves ${moves} times, and finds every byte as it was`, { timeout: 120_000 + moves * 90_000 }, async () => {
    const guest = await start(options, disks);
    let seen = { passes: 0, rounds: 0 };
    await moveAround(guest, async ({ pages }) => {
      expect(pages.teleported).toBeGreaterThan(0);
      const found = await inspect(guest);
      expect(found.passes).toBeGreaterThanOrEqual(seen.passes);
      expect(found.rounds).toBeGreaterThanOrEqual(seen.rounds);
      seen = found;
    });
    // What was there during the last move is verified at least once more.
    await expect
      .poll(() => inspect(guest), { timeout: 120_000 })
      .toSatisfy(({ passes, rounds }: typeof seen) => passes > seen.passes + 1 && rounds > seen.rounds + 1);
    expect(await guest.run('checksum')).toMatch(/failed 0$/);
    await expectNothingLeft([guest]);
  });
});

describe('A debian guest with PostgreSQL, in QEMU mixed', () => {
  useLab({ ...links[0], qemu: 'mixed' });

  it(`moves ${moves} times under its clients, and keeps every promise`, {
    timeout: 900_000 + moves * 120_000,
  }, async () => {
    const guest = await Guest.start('vm1', { kind: 'debian', memoryMiB: 1024 });
    const database = new Database(guest);
    await database.create();
    await using pgbench = await Pgbench.start(guest.address!);
    await using web = await WebClient.start(guest.address!);
    let committed = 0;
    let teleported = 0;
    await moveAround(guest, async ({ pages }) => {
      // A guest that is too busy for its agent is moved all the same.
      teleported += pages.teleported;
      await expect.poll(() => database.committed(), { timeout: 60_000 }).toBeGreaterThan(committed);
      committed = await database.committed();
    });
    expect(teleported).toBeGreaterThan(0);
    const { faults, connections, announced } = await web.stop();
    expect(faults).toEqual([]);
    expect(connections - announced).toBeLessThanOrEqual(1);
    await database.expectEverythingCommitted(pgbench);
    await database.expectSound();
    expect(await guest.run('checksum', 60_000)).toMatch(/ failed 0$/);
    await expectNothingLeft([guest]);
  });
});

/** There and back, each way with each mode on each link; `inspect` after every move. */
async function moveAround(guest: Guest, inspect: (report: MigrationReport) => Promise<void>): Promise<void> {
  for (let move = 0; move < moves; move++) {
    await setWan(links[Math.floor(move / 4) % links.length]!);
    const isTeleport = Math.floor(move / 2) % 2 === 0;
    // A guest that is busy may not fit into any pause: it is to move all the same.
    const { report } = await (isTeleport ? guest.teleport('--on-no-converge', 'stop-and-copy') : guest.switch());
    await inspect(report);
  }
}

async function start(options: LabGuestOptions, disks: 1 | 2): Promise<Guest> {
  const second = { id: 'second', path: join(labPaths.shared(), 'second.img') };
  if (disks === 2) await createDataDisk(second.path, contents);
  const guest = await Guest.start('vm1', { ...options, data: contents, disks: disks === 2 ? [second] : [] });
  const mounted = disks === 2 ? '/mnt/second' : '/data';
  await guest.run(`fill-cache; fill-cache ${mounted}; mkdir ${mounted}/written`);
  await guest.run(`pattern start 32 2000; fswriter start ${mounted}/written 8`);
  return guest;
}

/** @throws AssertionError when the guest has found an error */
async function inspect(guest: Guest): Promise<{ passes: number; rounds: number }> {
  const [, passes, patternErrors] = /passes (\d+) errors (\d+)/.exec(await guest.run('pattern status'))!;
  const [, rounds, fileErrors] = /rounds (\d+) errors (\d+)/.exec(await guest.run('fswriter status'))!;
  expect([patternErrors, fileErrors]).toEqual(['0', '0']);
  return { passes: Number(passes), rounds: Number(rounds) };
}
