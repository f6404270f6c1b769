/**
 * Teleport against all that stock QEMU can do, over guests with more and less page cache and links from slow to unshaped:
 * `npm run bench:sweep [cache | links | unshaped]`. Each row is one move of the same guest in one run, the median of three
 * where there is no slow link; QEMU 7.2.
 */
import { type DataDiskOptions, labDown, labUp } from '../lab/index.js';
import { median } from './median.js';
import { LabGuest, type Move } from './moves.js';
import { formatTable } from './table.js';

interface Link {
  readonly title: string;
  readonly rttMs: number;
  readonly rateBps: number | null;
  /** Of which the medians count: on a slow link it is the link that takes its time. */
  readonly rounds?: number;
}

const wan: Link = { title: '200 Mbit/s, 40 ms', rttMs: 40, rateBps: 200e6 };
const links: readonly Link[] = [
  { title: '50 Mbit/s, 40 ms', rttMs: 40, rateBps: 50e6 },
  wan,
  { title: '1 Gbit/s, 1 ms', rttMs: 1, rateBps: 1e9 },
  { title: 'unshaped', rttMs: 0, rateBps: null, rounds: 3 },
];
const memoryMiB = 1024;
/** Of the guest's memory. */
const cachedShares = [0, 0.2, 0.4, 0.6, 0.8] as const;
const usualShare = 0.4;
/** The guest reads its files once more, for so long at most, after the move. */
const rereadMs = 30_000;

interface Reread extends Move {
  /** How fast the guest reads its files after the move; null where it has none. */
  readonly bytesPerSecond: number | null;
}

interface Way {
  readonly title: string;
  readonly move: (guest: LabGuest) => Promise<Move>;
}

const precopy: Way = { title: 'QEMU pre-copy', move: (guest) => guest.stock('precopy') };
const teleport: Way = { title: 'vmmig teleport', move: (guest) => guest.teleport() };
const ways: readonly Way[] = [
  precopy,
  { title: 'QEMU multifd, zstd', move: (guest) => guest.stock('multifd-zstd') },
  { title: 'QEMU xbzrle', move: (guest) => guest.stock('xbzrle') },
  { title: 'drop caches, then pre-copy', move: dropThenMove },
  teleport,
  { title: 'vmmig teleport --no-agent', move: (guest) => guest.teleport({ arguments: ['--no-agent'] }) },
];

/** What is not in memory need not be moved: the guest reads it again from its disk when it needs it. */
async function dropThenMove(guest: LabGuest): Promise<Move> {
  const startMs = performance.now();
  await guest.run('sync; echo 3 > /proc/sys/vm/drop_caches');
  const droppingMs = performance.now() - startMs;
  const move = await guest.stock('precopy');
  return { ...move, totalMs: move.totalMs + droppingMs };
}

/** How fast the guest reads its files after the move, in bytes a second. */
async function rereadSpeed(guest: LabGuest, cachedMiB: number): Promise<number> {
  const startMs = performance.now();
  await guest.run('fill-cache /data/files', rereadMs);
  return (cachedMiB * 2 ** 20) / ((performance.now() - startMs) / 1000);
}

async function measure(link: Link, share: number, chosen: readonly Way[], title: string): Promise<void> {
  await labUp({ qemu: '7.2', rttMs: link.rttMs, rateBps: link.rateBps });
  try {
    const cachedMiB = Math.round(memoryMiB * share);
    const data: DataDiskOptions = cachedMiB === 0 ? { contents: 'empty' } : { contents: 'random', filesMiB: cachedMiB };
    const guest = await LabGuest.start('bench', { memoryMiB, data });
    const rows: string[][] = [];
    let stock: Reread | null = null;
    const moved = new Map(chosen.map((way) => [way, [] as Reread[]]));
    for (let round = 0; round < (link.rounds ?? 1); round++)
      for (const [way, moves] of moved) {
        if (cachedMiB > 0) await guest.run('fill-cache /data/files');
        const move = await way.move(guest);
        moves.push({ ...move, bytesPerSecond: cachedMiB === 0 ? null : await rereadSpeed(guest, cachedMiB) });
      }
    for (const [way, moves] of moved) {
      const move = middle(moves);
      if (way === precopy) stock = move;
      rows.push(row(way, move, stock));
    }
    const header = ['', 'on the wire', 'of pre-copy', 'total', 'of pre-copy', 'CPU', 'downtime', 'reads after'];
    process.stdout.write(`\n${title}\n${formatTable(header, rows)}`);
  } finally {
    await labDown();
  }
}

/** Of each figure its median. */
function middle(moves: readonly Reread[]): Reread {
  const of = (value: (move: Reread) => number) => median(moves.map(value));
  const orNull = (value: (move: Reread) => number | null) =>
    moves.some((move) => value(move) === null) ? null : of((move) => value(move)!);
  return {
    ...moves[0]!,
    wireBytes: of(({ wireBytes }) => wireBytes),
    totalMs: of(({ totalMs }) => totalMs),
    cpuMs: orNull(({ cpuMs }) => cpuMs),
    downtimeMs: orNull(({ downtimeMs }) => downtimeMs),
    bytesPerSecond: orNull(({ bytesPerSecond }) => bytesPerSecond),
  };
}

function row({ title }: Way, move: Reread, stock: Reread | null): string[] {
  const { bytesPerSecond } = move;
  const percent = (part: number, whole: number | undefined) =>
    whole === undefined ? '' : `${((100 * part) / whole).toFixed(1)} %`;
  return [
    title,
    `${(move.wireBytes / 1e6).toFixed(1)} MB`,
    percent(move.wireBytes, stock?.wireBytes),
    `${(move.totalMs / 1000).toFixed(2)} s`,
    percent(move.totalMs, stock?.totalMs),
    move.cpuMs === null ? '' : `${(move.cpuMs / 1000).toFixed(2)} s`,
    move.downtimeMs === null ? '' : `${move.downtimeMs} ms`,
    bytesPerSecond === null ? '' : `${(bytesPerSecond / 1e6).toFixed(0)} MB/s`,
  ];
}

const only = process.argv[2];
if (only === undefined || only === 'cache')
  for (const share of cachedShares)
    await measure(wan, share, [precopy, teleport], `${100 * share} % page cache, ${wan.title}`);
if (only !== 'cache')
  for (const link of links.filter(({ rounds }) => only !== 'unshaped' || rounds !== undefined))
    await measure(link, usualShare, ways, `${100 * usualShare} % page cache, ${link.title}`);
