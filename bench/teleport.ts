/**
 * Teleport against stock QEMU, in one run on one link: `npm run bench:teleport`. The guest has 1 GiB and 400 MiB of
 * cached files; the link has 200 Mbit/s and a round trip of 40 ms. Medians of three moves each way.
 */
import { type DataDiskOptions, labDown, labUp, type QemuVersion } from '../lab/index.js';
import { median } from './median.js';
import { LabGuest, type Move, type StockMode } from './moves.js';
import { formatTable } from './table.js';

const cachedMiB = 400;
/** Each way, in turn. */
const rounds = 3;

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
    const ours = [await guest.teleport()];
    const reread = await rereadShare(guest);
    const stock = [await guest.stock(scenario.against)];
    while (ours.length < rounds) {
      ours.push(await guest.teleport());
      stock.push(await guest.stock(scenario.against));
    }
    print(`${scenario.title}, QEMU ${qemu}`, ours, stock, reread);
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

function print(title: string, ours: readonly Move[], stock: readonly Move[], reread: number): void {
  const of = (moves: readonly Move[], value: (move: Move) => number | null) =>
    median(moves.map((move) => value(move) ?? 0));
  const rows = [ours, stock].map((moves) => [
    moves[0]!.name,
    `${(of(moves, ({ wireBytes }) => wireBytes) / 1e6).toFixed(1)} MB`,
    `${(of(moves, ({ totalMs }) => totalMs) / 1000).toFixed(2)} s`,
    moves.map(({ totalMs }) => (totalMs / 1000).toFixed(2)).join(', '),
    `${of(moves, ({ downtimeMs }) => downtimeMs)} ms`,
  ]);
  const percent = (part: number, whole: number) => `${((100 * part) / whole).toFixed(1)} %`;
  const ratio = (value: (move: Move) => number) => percent(of(ours, value), of(stock, value));
  rows.push(['ratio', ratio(({ wireBytes }) => wireBytes), ratio(({ totalMs }) => totalMs), '', '']);
  const worst = Math.min(...ours.map(({ report }) => report!.pages.teleported / (report!.agent?.pages ?? 0)));
  process.stdout.write(
    `\n${title}\n${formatTable(['', 'on the wire', 'total', 'each', 'downtime'], rows)}` +
      `cached pages teleported: ${percent(worst, 1)}; read again from disk after the move: ${(100 * reread).toFixed(2)} %\n`,
  );
}

for (const qemu of ['7.2', '10.0'] as const) for (const scenario of scenarios) await measure(qemu, scenario);
