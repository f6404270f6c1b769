/** Who on this host has a disk image open to write it. Found by name in /proc: nothing is asked of the storage. */
import { readlinkSync } from 'node:fs';
import { readdir, readFile, realpath } from 'node:fs/promises';

export interface ImageWriter {
  readonly pid: number;
  /** The process's name, 15 characters at most. */
  readonly name: string;
}

const accessMode = 0o3;

/** Processes that another user's are hidden among are not found by who is not root. */
export async function writersOf(path: string): Promise<ImageWriter[]> {
  const target = await realpath(path).catch(() => null);
  if (target === null) return [];
  const processes = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const writers: ImageWriter[] = [];
  for (const pid of processes) {
    const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => []);
    for (const descriptor of descriptors) {
      const isTarget = () => linkOf(`/proc/${pid}/fd/${descriptor}`) === target;
      // Asked again: the number may be another file's by the time that its flags are read.
      if (!isTarget() || !(await isForWriting(pid, descriptor)) || !isTarget()) continue;
      const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '');
      writers.push({ pid: Number(pid), name: name.trim() });
      break;
    }
  }
  return writers;
}

/** Synchronous: no I/O is behind it, and there are very many. */
function linkOf(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch {
    return null;
  }
}

async function isForWriting(pid: string, descriptor: string): Promise<boolean> {
  const info = await readFile(`/proc/${pid}/fdinfo/${descriptor}`, 'utf8').catch(() => '');
  const flags = Number.parseInt(/^flags:\s*([0-7]+)$/m.exec(info)?.[1] ?? '0', 8);
  return (flags & accessMode) !== 0;
}
