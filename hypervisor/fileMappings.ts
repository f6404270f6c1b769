/** Who has a file mapped, as /proc tells it. */
import { readdir, readFile } from 'node:fs/promises';

/** Processes of this host that have mapped a file, as far as this user may look. */
export async function processesMapping(path: string, inode: bigint | number): Promise<number[]> {
  const name = path.slice(path.lastIndexOf('/'));
  const found: number[] = [];
  for (const pid of (await readdir('/proc')).filter((entry) => /^\d+$/.test(entry))) {
    const maps = await readFile(`/proc/${pid}/maps`, 'utf8').catch(() => '');
    if (maps.split('\n').some((line) => line.endsWith(name) && line.includes(` ${inode} `))) found.push(Number(pid));
  }
  return found;
}
