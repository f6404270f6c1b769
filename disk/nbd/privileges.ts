/** With what rights a program runs that only reads disk images. */
import { readFile } from 'node:fs/promises';

/** Bits of /proc/PID/status, CapEff: what it takes to give up the rest (include/uapi/linux/capability.h). */
const NEEDED = [2 /* DAC_READ_SEARCH */, 6 /* SETGID */, 7 /* SETUID */, 8 /* SETPCAP */];
const KEPT = '-all,+dac_read_search';
/** "nobody", whom no file should belong to. */
const NOBODY = '65534';

/**
 * Arguments for `setpriv`: the program ends with the one that started it, and gains nothing from what it executes. Where
 * that is root, a program that only needs files becomes a nobody who may read all of them, and write none.
 * @param isPath - the image is a file or device; what it takes to reach others, only their drivers know
 */
export async function readerPrivileges(isPath: boolean): Promise<string[]> {
  const always = ['--pdeathsig', 'KILL', '--no-new-privs'];
  if (!isPath) return always;
  const status = await readFile('/proc/self/status', 'utf8');
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  if (!NEEDED.every((bit) => (effective >> BigInt(bit)) & 1n)) return always;
  return [
    ...always,
    ...['--reuid', NOBODY, '--regid', NOBODY, '--clear-groups'],
    ...['--inh-caps', KEPT, '--ambient-caps', KEPT, '--bounding-set', KEPT],
  ];
}
