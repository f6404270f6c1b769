/** With what rights a program runs that only reads disk images. */
import { readFile } from 'node:fs/promises';

/** Bits of /proc/PID/status, CapEff: what it takes to give up the rest (include/uapi/linux/capability.h). */
const NEEDED = [2 /* DAC_READ_SEARCH */, 6 /* SETGID */, 7 /* SETUID */, 8 /* SETPCAP */];
const KEPT = '-all,+dac_read_search';
/** "nobody", whom no file should belong to. */
const NOBODY = '65534';

/**
 * Arguments for `setpriv`: the program ends with the one that started it, and gains nothing from what it executes. Where
 * that is root, the program becomes a nobody who may read all files, and write none.
 */
export async function readerPrivileges(): Promise<string[]> {
  const always = ['--pdeathsig', 'KILL', '--no-new-privs'];
  const status = await readFile('/proc/self/status', 'utf8');
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  if (!NEEDED.every((bit) => (effective >> BigInt(bit)) & 1n)) return always;
  return [
    ...always,
    ...['--reuid', NOBODY, '--regid', NOBODY, '--clear-groups'],
    ...['--inh-caps', KEPT, '--ambient-caps', KEPT, '--bounding-set', KEPT],
  ];
}
