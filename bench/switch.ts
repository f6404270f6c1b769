/**
 * Switch against stock QEMU, on one link in one run: `npm run bench:switch [7.2 | 10.0]`. For each link guests of 1, 4 and
 * 8 GiB, and one of 1 GiB in a shared memory file, each with 400 MiB of cached files; the one of 1 GiB also moves the ways
 * that QEMU has by itself.
 */
import { labDown, labUp, type QemuVersion } from '../lab/index.js';
import { LabGuest, type Move } from './moves.js';
import { formatTable } from './table.js';

interface LinkShape {
  readonly title: string;
  readonly rttMs: number;
  readonly rateBps: number;
}

interface Kind {
  readonly title: string;
  readonly memoryMiB: number;
  readonly sharedMemory: boolean;
}

const links: readonly LinkShape[] = [
  { title: '200 Mbit/s, 40 ms', rttMs: 40, rateBps: 200e6 },
  { title: '1 Gbit/s, 1 ms', rttMs: 1, rateBps: 1e9 },
];
const kinds: readonly Kind[] = [
  { title: '1 GiB', memoryMiB: 1024, sharedMemory: false },
  { title: '4 GiB', memoryMiB: 4096, sharedMemory: false },
  { title: '8 GiB', memoryMiB: 8192, sharedMemory: false },
  { title: '1 GiB in a file', memoryMiB: 1024, sharedMemory: true },
];
const cachedMiB = 400;

interface Row {
  readonly guest: string;
  readonly move: Move;
  /** By a program in the guest that wakes up every millisecond. */
  readonly longestGapMs: number | null;
  readonly sinkMs: number | null;
}

async function measure(qemu: QemuVersion, link: LinkShape): Promise<void> {
  const rows: Row[] = [];
  for (const kind of kinds) {
    await labUp({ qemu, rttMs: link.rttMs, rateBps: link.rateBps });
    try {
      const { memoryMiB, sharedMemory } = kind;
      const guest = await LabGuest.start('bench', {
        memoryMiB,
        sharedMemory,
        data: { contents: 'random', filesMiB: cachedMiB },
      });
      await guest.run('fill-cache /data/files');
      const sinkMs = sharedMemory ? null : await guest.sinkMs();
      rows.push(await timed(guest, kind.title, sinkMs, () => guest.switch()));
      if (kind === kinds[0])
        for (const mode of ['precopy', 'postcopy'] as const)
          rows.push(await timed(guest, kind.title, null, () => guest.stock(mode)));
    } finally {
      await labDown();
    }
  }
  print(`${link.title}, QEMU ${qemu}`, rows);
}

async function timed(guest: LabGuest, title: string, sinkMs: number | null, move: () => Promise<Move>): Promise<Row> {
  await guest.run('ticker start');
  const moved = await move();
  const status = await guest.run('ticker status');
  const longestUs = /longest_us (\d+)/.exec(status)?.[1];
  return { guest: title, move: moved, longestGapMs: longestUs === undefined ? null : Number(longestUs) / 1000, sinkMs };
}

function print(title: string, rows: readonly Row[]): void {
  const ms = (value: number | null | undefined) => (value == null ? '' : `${Math.round(value)} ms`);
  const precise = (value: number | undefined) => (value === undefined ? '' : `${value.toFixed(1)} ms`);
  const cells = rows.map(({ guest, move, longestGapMs, sinkMs }) => {
    const { report, name, wireBytes, totalMs, downtimeMs } = move;
    const remote = report?.faults?.answers.remote;
    const local = report?.faults?.answers.local;
    return [
      `${guest}: ${name}`,
      `${(wireBytes / 1e6).toFixed(1)} MB`,
      ms(report?.switchoverMs),
      ms(totalMs),
      ms(downtimeMs),
      ms(longestGapMs),
      ms(sinkMs),
      remote === undefined ? '' : String(remote.count),
      precise(remote?.p50Ms),
      precise(remote?.p99Ms),
      local === undefined ? '' : String(local.count),
      precise(local?.p50Ms),
    ];
  });
  const header = ['', 'on the wire', 'runs there', 'total', 'pause', 'longest gap', 'local sink'];
  header.push('remote faults', 'p50', 'p99', 'local faults', 'p50');
  process.stdout.write(`\n${title}\n${formatTable(header, cells)}`);
  const [ours, precopy, postcopy] = rows;
  const percent = (part: number, whole: number) => `${((100 * part) / whole).toFixed(1)} %`;
  process.stdout.write(
    `on the wire: ${percent(ours!.move.wireBytes, postcopy!.move.wireBytes)} of post-copy's; ` +
      `total: ${percent(ours!.move.totalMs, precopy!.move.totalMs)} of pre-copy's, ` +
      `${percent(ours!.move.totalMs, postcopy!.move.totalMs)} of post-copy's\n`,
  );
}

const wanted = process.argv[2];
const versions: readonly QemuVersion[] = ['7.2', '10.0'];
for (const qemu of versions.filter((version) => wanted === undefined || version === wanted))
  for (const link of links) await measure(qemu, link);
