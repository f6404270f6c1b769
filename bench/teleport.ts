/**
 * Teleport against stock QEMU, in one run on one link: `npm run bench:teleport`. The guest has 1 GiB and 400 MiB of
 * cached files; the link has 200 Mbit/s and a round trip of 40 ms.
 */
import { type DataDiskOptions, labDown, labUp, type QemuVersion } from '../lab/index.js';
import { LabGuest, type Move, type StockMode } from './moves.js';
import { formatTable } from './table.js';

const cachedMiB = 400;

interface Scenario {
  readonly contents: DataDiskOptions['contents'];
  readonly title: string;
  readonly against: StockMode;
}

const scenarios: readonly Scenario[] = [
  { contents: 'random', title: 'incompressible files', against: 'precopy' },
  { contents: 'real', title: 'real files (/usr/lib)', against: 'multifd-zstd' },
];

async function measure(qemu: QemuVersion, scenario: Scenario): Promise<void> {
  await labUp({ qemu, rttMs: 40, rateBps: 200_000_000 });
  try {
    const data: DataDiskOptions = { contents: scenario.contents, filesMiB: cachedMiB };
    const guest = await LabGuest.start('bench', { memoryMiB: 1024, data });
    await guest.run('fill-cache /data/files');
    const moves: Move[] = [await guest.teleport()];
    const reread = await rereadShare(guest);
    moves.push(await guest.stock(scenario.against));
    print(`${scenario.title}, QEMU ${qemu}`, moves, reread);
  } finally {
    await labDown();
  }
}

/** How much of the cached files is read from disk when they are read once more. */
async function rereadShare(guest: LabGuest): Promise<number> {
  const before = Number(await guest.run('disk-reads'));
  await guest.run('fill-cache /data/files');
  const after = Number(await guest.run('disk-reads'));
  return ((after - before) * 512) / (cachedMiB * 2 ** 20);
}

function print(title: string, moves: readonly Move[], reread: number): void {
  const [ours, stock] = moves as [Move, Move];
  const rows = moves.map(({ name, wireBytes, totalMs, downtimeMs }) => [
    name,
    `${(wireBytes / 1e6).toFixed(1)} MB`,
    `${(totalMs / 1000).toFixed(2)} s`,
    downtimeMs === null ? '' : `${downtimeMs} ms`,
  ]);
  const percent = (part: number, whole: number) => `${((100 * part) / whole).toFixed(1)} %`;
  rows.push(['ratio', percent(ours.wireBytes, stock.wireBytes), percent(ours.totalMs, stock.totalMs), '']);
  const { pages, agent } = ours.report!;
  process.stdout.write(
    `\n${title}\n${formatTable(['', 'on the wire', 'total', 'downtime'], rows)}` +
      `cached pages teleported: ${percent(pages.teleported, agent?.pages ?? 0)}; read again from disk after the move: ${(100 * reread).toFixed(2)} %\n`,
  );
}

for (const qemu of ['7.2', '10.0'] as const) for (const scenario of scenarios) await measure(qemu, scenario);
