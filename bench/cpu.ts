/** Processor time of processes in the lab, in milliseconds since they began. */
import { readdirSync, readFileSync } from 'node:fs';
import { labDirectory } from '../lab/index.js';

const tickMs = 10;
/** Fields of /proc/PID/stat after the program's name, proc(5). */
const [utime, stime, cutime, cstime] = [11, 12, 13, 14];

/** Of the QEMUs of a guest, source and destination. */
export function qemuCpuMs(guest: string): number {
  const isQemu = (argv: readonly string[]) =>
    argv[0]?.includes('qemu-system') === true && argv[argv.indexOf('-name') + 1] === guest && isOfLab(argv);
  return sum(isQemu, (ticks) => ticks(utime) + ticks(stime));
}

/**
 * Of all that vmmig's services on both hosts have used, those that have ended: of what the SSH servers have waited for,
 * encryption included.
 */
export function serviceCpuMs(): number {
  const isServer = (argv: readonly string[]) => argv[0]?.startsWith('sshd: ') === true && isOfLab(argv);
  return sum(isServer, (ticks) => ticks(cutime) + ticks(cstime));
}

function isOfLab(argv: readonly string[]): boolean {
  return argv.some((argument) => argument.includes(labDirectory()));
}

function sum(isWanted: (argv: readonly string[]) => boolean, of: (ticks: (field: number) => number) => number): number {
  let total = 0;
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      if (!isWanted(readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0'))) continue;
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      total += of((field) => Number(fields[field])) * tickMs;
    } catch {
      // It has ended since.
    }
  }
  return total;
}
