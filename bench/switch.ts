/**
 * Switch against stock QEMU, on one link in one run: `npm run bench:switch [7.2 | 10.0]`. For each link guests of 1, 4 and
 * 8 GiB, and one of 1 GiB in a shared memory file, each with 400 MiB of cached files; the one of 1 GiB also moves the ways
 * that QEMU has by itself. Medians of three switches; the longest of what 99 % of their faults took.
 */
import { labDown, labUp, type QemuVersion } from '../lab/index.js';
import { median } from './median.js';
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
const rounds = 3;

interface TimedMove extends Move {
  /** By a program in the guest that wakes up every millisecond. */
  readonly longestGapMs: number | null;
}

interface Row {
  readonly guest: string;
  readonly moves: readonly TimedMove[];
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
      const moves: TimedMove[] = [];
      while (moves.length < rounds) moves.push(await timed(guest, () => guest.switch()));
      rows.push({ guest: kind.title, moves, sinkMs });
      if (kind === kinds[0])
        for (const mode of ['precopy', 'postcopy'] as const)
          rows.push({ guest: kind.title, moves: [await timed(guest, () => guest.stock(mode))], sinkMs: null });
    } finally {
      await labDown();
    }
  }
  print(`${link.title}, QEMU ${qemu}`, rows);
}

async function timed(guest: LabGuest, move: () => Promise<Move>): Promise<TimedMove> {
  await guest.run('ticker start');
  const moved = await move();
  const status = await guest.run('ticker status');
  const longestUs = /longest_us (\d+)/.exec(status)?.[1];
  return { ...moved, longestGapMs: longestUs === undefined ? null : Number(longestUs) / 1000 };
}

/** Null where there is none. */
function middle<T>(of: readonly T[], value: (each: T) => number | null | undefined): number | null {
  const values = of.map(value).filter((each) => each != null);
  return values.length === 0 ? null : median(values);
}

function print(title: string, rows: readonly Row[]): void {
  const ms = (value: number | null) => (value === null ? '' : `${Math.round(value)} ms`);
  const precise = (value: number | null) => (value === null ? '' : `${value.toFixed(1)} ms`);
  const cells = rows.map(({ guest, moves, sinkMs }) => {
    const answers = (kind: 'remote' | 'local') =>
      moves.flatMap(({ report }) => report?.faults?.answers[kind] ?? []).filter(({ count }) => count > 0);
    const [remote, local] = [answers('remote'), answers('local')];
    const count = (of: typeof remote) =>
      moves[0]!.report ? String(of.reduce((sum, each) => sum + each.count, 0)) : '';
    return [
      `${guest}: ${moves[0]!.name}`,
      `${(middle(moves, ({ wireBytes }) => wireBytes)! / 1e6).toFixed(1)} MB`,
      ms(middle(moves, ({ report }) => report?.switchoverMs)),
      ms(middle(moves, ({ totalMs }) => totalMs)),
      ms(middle(moves, ({ downtimeMs }) => downtimeMs)),
      ms(middle(moves, ({ longestGapMs }) => longestGapMs)),
      ms(sinkMs),
      count(remote),
      precise(middle(remote, ({ p50Ms }) => p50Ms)),
      precise(remote.length === 0 ? null : Math.max(...remote.map(({ p99Ms }) => p99Ms))),
      count(local),
      precise(middle(local, ({ p50Ms }) => p50Ms)),
    ];
  });
  const header = ['', 'on the wire', 'runs there', 'total', 'pause', 'longest gap', 'local sink'];
  header.push('remote faults', 'p50', 'p99', 'local faults', 'p50');
  process.stdout.write(`\n${title}\n${formatTable(header, cells)}`);
  const [ours, precopy, postcopy] = rows.map(({ moves }) => ({
    wireBytes: middle(moves, ({ wireBytes }) => wireBytes)!,
    totalMs: middle(moves, ({ totalMs }) => totalMs)!,
  }));
  const percent = (part: number, whole: number) => `${((100 * part) / whole).toFixed(1)} %`;
  process.stdout.write(
    `on the wire: ${percent(ours!.wireBytes, postcopy!.wireBytes)} of post-copy's; ` +
      `total: ${percent(ours!.totalMs, precopy!.totalMs)} of pre-copy's, ` +
      `${percent(ours!.totalMs, postcopy!.totalMs)} of post-copy's\n`,
  );
}

const wanted = process.argv[2];
const versions: readonly QemuVersion[] = ['7.2', '10.0'];
for (const qemu of versions.filter((version) => wanted === undefined || version === wanted))
  for (const link of links) await measure(qemu, link);
