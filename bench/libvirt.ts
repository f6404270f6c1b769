/**
 * Teleport and switch of domains against libvirt's own migration, in one run: `npm run bench:libvirt [7.2 | 10.0]`. A domain
 * of 1 GiB with 400 MiB of cached files goes back and forth over one link: by each of libvirt's ways once, and before and
 * after each of them by teleport, of which the median counts.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { type DataDiskOptions, labDown, labExec, labUp, type QemuVersion, setWan } from '../lab/index.js';
import type { MigrationReport } from '../migrate/index.js';
import { median } from './median.js';
import { LabGuest, type Move, wireBytes } from './moves.js';
import { formatTable } from './table.js';
import { warmMemory } from './warmMemory.js';

const qemu = (process.argv[2] ?? '7.2') as QemuVersion;
const cachedMiB = 400;
const memoryMiB = 1024;
/** libvirt does not take the lab's directory for shared storage. */
const unsafe = '--unsafe';

const ways = {
  plain: { title: 'virsh migrate --live', options: [] },
  zstd: {
    title: 'virsh migrate --live --parallel --compressed --comp-methods zstd',
    options: ['--parallel', '--compressed', '--comp-methods', 'zstd'],
  },
  postcopy: { title: 'virsh migrate --live --postcopy, switched at once', options: ['--postcopy'] },
} as const;
type Way = keyof typeof ways;

interface Target {
  readonly against: Way;
  readonly of: 'wireBytes' | 'totalMs';
  readonly limit: number;
}

interface Scenario {
  readonly contents: DataDiskOptions['contents'];
  readonly title: string;
  readonly targets: readonly Target[];
}

const scenarios: readonly Scenario[] = [
  {
    contents: 'random',
    title: 'incompressible files',
    targets: [
      { against: 'plain', of: 'wireBytes', limit: 0.15 },
      { against: 'plain', of: 'totalMs', limit: 0.15 },
    ],
  },
  {
    contents: 'real',
    title: 'real files (/usr/lib)',
    targets: [{ against: 'zstd', of: 'wireBytes', limit: 0.25 }],
  },
];
const longestSwitchoverMs = 1500;
const switches = 5;

/** Moves the domain with virsh, run on the host where it is. */
async function virshMigrate(guest: LabGuest, way: Way): Promise<Move> {
  const { title, options } = ways[way];
  const to = `qemu+ssh://${guest.otherHost}/system`;
  warmMemory();
  const before = await wireBytes();
  const startMs = performance.now();
  const migrate = labExec(guest.host, ['virsh', 'migrate', '--live', unsafe, ...options, guest.name, to]);
  let isOver = false;
  const ended = migrate.finally(() => {
    isOver = true;
  });
  ended.catch(() => {});
  if (way === 'postcopy') {
    // Refused until QEMU's migration has begun.
    const begin = () => labExec(guest.host, ['virsh', 'migrate-postcopy', guest.name], { reject: false });
    while (!isOver && (await begin()).failed) await delay(20);
  }
  await ended;
  const totalMs = performance.now() - startMs;
  guest.host = guest.otherHost;
  return { name: title, wireBytes: (await wireBytes()) - before, totalMs, cpuMs: null, downtimeMs: null, report: null };
}

async function withDomain(
  options: { rttMs: number; rateBps: number; sharedMemory?: boolean; contents: DataDiskOptions['contents'] },
  measure: (guest: LabGuest) => Promise<void>,
): Promise<void> {
  const { rttMs, rateBps, contents, ...more } = options;
  await labUp({ qemu, rttMs: 1, rateBps: 1e9, libvirt: '11.3' });
  try {
    const data: DataDiskOptions = { contents, filesMiB: cachedMiB };
    const guest = await LabGuest.start('bench', { memoryMiB, libvirt: true, data, ...more });
    await guest.run('fill-cache /data/files');
    // A libvirt that has never had a domain of this emulator asks it first what it can do, for seconds.
    for (let moves = 0; moves < 2; moves++) await virshMigrate(guest, 'plain');
    await setWan({ rttMs, rateBps });
    await measure(guest);
  } finally {
    await labDown();
  }
}

async function compare({ contents, title, targets }: Scenario): Promise<void> {
  await withDomain({ rttMs: 40, rateBps: 200e6, contents }, async (guest) => {
    const each = [await guest.teleport({ arguments: [unsafe] })];
    const theirs = {} as Record<Way, Move>;
    for (const way of Object.keys(ways) as Way[]) {
      theirs[way] = await virshMigrate(guest, way);
      for (let moves = 0; moves < 2; moves++) each.push(await guest.teleport({ arguments: [unsafe] }));
    }
    const middleMs = median(each.map(({ totalMs }) => totalMs));
    const ours = each.find(({ totalMs }) => totalMs === middleMs)!;
    const share = ({ against, of }: Target) => ours[of] / theirs[against][of];
    const rows = [ours, ...Object.values(theirs)].map((move) => [
      move.name,
      megabytes(move.wireBytes),
      seconds(move.totalMs),
      move === ours ? '' : percent(ours.wireBytes / move.wireBytes),
      move === ours ? '' : percent(ours.totalMs / move.totalMs),
    ]);
    const header = ['', 'on the wire', 'total', 'vmmig’s share: wire', 'total'];
    print(`${title}, 200 Mbit/s, 40 ms, QEMU ${qemu}`, formatTable(header, rows));
    for (const target of targets) {
      const { against, of, limit } = target;
      const what = `${of === 'wireBytes' ? 'on the wire' : 'total'}, of ${ways[against].title}`;
      judge(what, percent(share(target)), percent(limit), share(target) <= limit);
    }
    process.stdout.write(`each teleport: ${each.map(({ totalMs }) => seconds(totalMs)).join(', ')}\n`);
    printPhases(ours.report!);
  });
}

async function switchOver(): Promise<void> {
  await withDomain({ rttMs: 1, rateBps: 1e9, sharedMemory: true, contents: 'random' }, async (guest) => {
    const title = `memory in a file, 1 Gbit/s, 1 ms, QEMU ${qemu}: vmmig switch`;
    const argv = ['vmmig', 'preflight', guest.name, '--to', guest.otherHost, '--mode', 'switch', '--json', unsafe];
    const { exitCode, stdout } = await labExec(guest.host, argv as [string, ...string[]], { reject: false });
    if (exitCode !== 0) {
      const { findings } = JSON.parse(stdout) as Pick<MigrationReport, 'findings'>;
      const reasons = findings.filter(({ severity }) => severity === 'refuse').map(({ code }) => code);
      print(title, `refused: ${reasons.join(', ')}\n`);
      return;
    }
    const each: Move[] = [];
    while (each.length < switches) each.push(await guest.switch({ arguments: [unsafe] }));
    const runsThereMs = ({ report }: Move) => report!.switchoverMs!;
    const middleMs = median(each.map(runsThereMs));
    const { wireBytes, totalMs, report } = each.find((move) => runsThereMs(move) === middleMs)!;
    const header = ['', 'on the wire', 'runs there', 'pause', 'total'];
    const pause = `${report!.downtimeMs} ms`;
    const row = ['vmmig switch', megabytes(wireBytes), seconds(middleMs), pause, seconds(totalMs)];
    print(title, formatTable(header, [row]));
    judge('runs there', seconds(middleMs), seconds(longestSwitchoverMs), middleMs <= longestSwitchoverMs);
    process.stdout.write(`each switch: ${each.map((move) => seconds(runsThereMs(move))).join(', ')}\n`);
    printPhases(report!);
  });
}

function print(title: string, text: string): void {
  process.stdout.write(`\n${title}\n${text}`);
}

function judge(what: string, is: string, atMost: string, isReached: boolean): void {
  process.stdout.write(`${what}: ${is}, at most ${atMost}: ${isReached ? 'reached' : 'NOT REACHED'}\n`);
}

/** Where the time went. Phases may overlap. */
function printPhases({ phases }: MigrationReport): void {
  const each = phases.map(({ name, startMs, ms }) => `${name} ${seconds(startMs)} + ${seconds(ms)}`);
  process.stdout.write(`phases, from + for: ${each.join('; ')}\n`);
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

for (const scenario of scenarios) await compare(scenario);
await switchOver();
