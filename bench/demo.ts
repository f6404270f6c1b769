/**
 * What vmmig does, shown in two minutes: `npm run demo`. Raises the lab, moves a guest whose page cache is full over a slow
 * link, proves that it carried on, moves it back the way QEMU does, and takes the lab down, whatever happens.
 *
 * Exits with 0 when every proof holds, 1 when one does not or something fails, 130 when interrupted.
 */
import { labDown, labExec, labUp } from '../lab/index.js';
import { LabGuest, type Move } from './moves.js';
import { formatTable } from './table.js';

// A lab of its own: one that is up already is left alone.
process.env.VMMIG_LAB_DIR ??= '/var/lib/vmmig/demo';

const cachedMiB = 400;
const sectorBytes = 512;
/** Of the cached files, what may be read from disk again: file system metadata that was not cached. */
const maxRereadShare = 0.01;

const isAnimated = process.stdout.isTTY && process.env.TERM !== 'dumb';
const useColours = isAnimated && !process.env.NO_COLOR;
const isUtf8 = /utf-?8/i.test(process.env.LC_ALL || process.env.LC_CTYPE || process.env.LANG || '');
const bold = (text: string) => (useColours ? `\x1b[1m${text}\x1b[0m` : text);
const dim = (text: string) => (useColours ? `\x1b[2m${text}\x1b[0m` : text);
const green = (text: string) => (useColours ? `\x1b[32m${text}\x1b[0m` : text);
const red = (text: string) => (useColours ? `\x1b[31m${text}\x1b[0m` : text);

function say(line = ''): void {
  process.stdout.write(`${line}\n`);
}

/** One line for each step: on a terminal while it runs, in the end with the time it took. */
async function step<T>(name: string, work: () => Promise<T>): Promise<T> {
  const startMs = performance.now();
  if (isAnimated) process.stdout.write(dim(`           ${name} ...`));
  let result: T;
  try {
    result = await work();
  } finally {
    if (isAnimated) process.stdout.write('\r\x1b[K');
  }
  say(`${((performance.now() - startMs) / 1000).toFixed(1).padStart(6)} s  ${name}`);
  return result;
}

interface Proof {
  readonly claim: string;
  readonly evidence: string;
  readonly holds: boolean;
}

/** What only the guest itself knows, from before it moved. */
interface Before {
  readonly bootId: string;
  readonly count: number;
}

async function observe(guest: LabGuest): Promise<Before> {
  const [bootId = '', count = ''] = (await guest.run('cat /proc/sys/kernel/random/boot_id; count')).split('\n');
  return { bootId, count: Number(count) };
}

/** A guest that had been started anew would have another boot id, and would have begun to count again. */
async function proveItCarriedOn(guest: LabGuest, before: Before): Promise<Proof> {
  const after = await observe(guest);
  return {
    claim: 'It carried on',
    evidence: `its own counter went from ${before.count} to ${after.count}, without a reboot`,
    holds: after.bootId === before.bootId && after.count > before.count,
  };
}

/** Reads the cached files once more, and has the guest's kernel say what that took from the disk. */
async function proveCacheIsWarm(guest: LabGuest): Promise<Proof> {
  const sectors = await guest.run('disk-reads; fill-cache /data/files; disk-reads');
  const [before = 0, after = 0] = sectors.split('\n').map(Number);
  const readBytes = (after - before) * sectorBytes;
  return {
    claim: 'Its page cache is warm',
    evidence: `reading ${cachedMiB} MiB of files again took ${(readBytes / 2 ** 20).toFixed(1)} MiB from the disk`,
    holds: readBytes >= 0 && readBytes < maxRereadShare * cachedMiB * 2 ** 20,
  };
}

async function proveFilesAreIntact(guest: LabGuest): Promise<Proof> {
  const found = await guest.run('checksum /data || true');
  const [, checked = 0, failed = -1] = (/checked (\d+) failed (\d+)/.exec(found) ?? []).map(Number);
  return {
    claim: 'Its files are intact',
    evidence: `${checked} SHA-256 sums compared in the guest, ${failed} wrong`,
    holds: checked > 0 && failed === 0,
  };
}

function tell({ claim, evidence, holds }: Proof): boolean {
  say(`  ${holds ? green(isUtf8 ? '✔' : 'ok') : red(isUtf8 ? '✘' : 'NOT SO')} ${claim}: ${evidence}`);
  return holds;
}

function compare(ours: Move, stock: Move): void {
  const rows = [ours, stock].map(({ name, wireBytes, totalMs, downtimeMs }) => [
    name,
    `${(wireBytes / 1e6).toFixed(0)} MB`,
    `${(totalMs / 1000).toFixed(1)} s`,
    downtimeMs === null ? '' : `${downtimeMs} ms`,
  ]);
  const [fewerBytes, faster] = [stock.wireBytes / ours.wireBytes, stock.totalMs / ours.totalMs];
  rows.push(['', `${fewerBytes.toFixed(1)} times`, `${faster.toFixed(1)} times`, '']);
  say(formatTable(['', 'on the wire', 'total time', 'downtime'], rows).replace(/^/gm, '  ').trimEnd());
  say(dim("\n  Bytes are counted at the lab's router, both ways, with all headers."));
}

/** @returns whether every proof holds */
async function demonstrate(signal: AbortSignal): Promise<boolean> {
  say(bold('A guest with 400 MiB of page cache moves over 200 Mbit/s and 40 ms'));
  say();
  await step('raise two hosts and the link between them', () =>
    labUp({ rttMs: 40, rateBps: 200_000_000, qemu: '7.2', signal }),
  );
  const guest = await step('boot vm1 on hostA: 1 GiB of memory, a data disk on shared storage', () =>
    LabGuest.start('vm1', { memoryMiB: 1024, data: { contents: 'random', filesMiB: cachedMiB }, signal }),
  );
  await step(`read ${cachedMiB} MiB of incompressible files in vm1`, () => guest.run('fill-cache /data/files'));

  const before = await observe(guest);
  say(`\n${bold('hostA# vmmig teleport vm1 --to hostB')}`);
  const move = guest.teleport({ showProgress: true });
  teleporting = move;
  const ours = await move;
  signal.throwIfAborted();
  say();
  const proofs = [tell(await proveItCarriedOn(guest, before))];
  proofs.push(tell(await proveCacheIsWarm(guest)));
  proofs.push(tell(await proveFilesAreIntact(guest)));

  say(`\n${bold('hostA# vmmig show vm1')}`);
  await labExec('hostA', ['vmmig', 'show', 'vm1'], { stdout: 'inherit', stderr: 'inherit' });

  say(`\n${bold('The way back, by QEMU alone')}`);
  const stock = await step('migrate vm1 to hostA: pre-copy, as QEMU does it', () => guest.stock('precopy'));
  proofs.push(tell(await proveItCarriedOn(guest, before)));
  say();
  compare(ours, stock);
  return proofs.every(Boolean);
}

/** Rejects at the first signal that asks this process to end. Later ones change nothing: the lab is being taken down. */
function interruption(controller: AbortController): Promise<never> {
  return new Promise((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(signal, () => {
        controller.abort();
        reject(new Interrupted());
      });
    }
  });
}

class Interrupted extends Error {}

/** vmmig hears Ctrl-C from the terminal itself, cancels, and is not cut short in doing so. */
let teleporting: Promise<unknown> = Promise.resolve();

async function main(): Promise<number> {
  const controller = new AbortController();
  try {
    const interrupted = interruption(controller);
    return (await Promise.race([demonstrate(controller.signal), interrupted])) ? 0 : 1;
  } catch (error) {
    if (controller.signal.aborted) return 130;
    process.stderr.write(`\n${red('The demo failed:')} ${error instanceof Error ? error.message : String(error)}\n`);
    return 1;
  } finally {
    await teleporting.catch(() => {});
    say();
    await step('take the lab down', () => labDown());
  }
}

// What an interruption left unfinished fails as the lab goes away, and is not waited for.
process.on('unhandledRejection', () => {});
process.exit(await main());
