/**
 * How long the agent needs for the map of a million cached pages, in an emulated guest: `npm run bench:scan [7.2 | 10.0]`.
 * The first scan of all, whose code QEMU has to translate, and those that follow.
 */
import { labDown, labExec, labUp, type QemuVersion } from '../lab/index.js';
import { LabGuest } from './moves.js';
import { formatTable } from './table.js';

const qemu = (process.argv[2] ?? '7.2') as QemuVersion;
const cachedMiB = 4096;
const rounds = 4;

interface Scanned {
  readonly scanMs: number;
  readonly pages: number;
  readonly runs: number;
}

async function scan(guest: LabGuest): Promise<Scanned> {
  const { stdout } = await labExec(guest.host, ['vmmig', 'agent', 'scan', guest.name, '--json']);
  return JSON.parse(stdout) as Scanned;
}

await labUp({ qemu, rttMs: 1, rateBps: 1e9 });
try {
  const data = { contents: 'random', filesMiB: cachedMiB } as const;
  const guest = await LabGuest.start('bench', { memoryMiB: cachedMiB + 1024, data });
  await guest.run('fill-cache /data/files', 600_000);
  const rows: string[][] = [];
  for (let round = 1; round <= rounds; round++) {
    const { scanMs, pages, runs } = await scan(guest);
    const microseconds = ((scanMs * 1000) / pages).toFixed(2);
    rows.push([String(round), `${(scanMs / 1000).toFixed(2)} s`, String(pages), String(runs), `${microseconds} µs`]);
  }
  process.stdout.write(`\nQEMU ${qemu}\n${formatTable(['scan', 'time', 'pages', 'runs', 'a page'], rows)}`);
} finally {
  await labDown();
}
