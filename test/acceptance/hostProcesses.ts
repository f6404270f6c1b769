/**
 * The processes and files of a lab host as this process sees them: without starting anything in the host, for what has to
 * be hit within milliseconds.
 */
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { type HostName, pathInMember } from '../../lab/index.js';

const pollMs = 5;
const patienceMs = 180_000;
const runDir = '/run/vmmig';

/** Process ids, as this process sees them, of those whose command line is like that. */
export function find(host: HostName, like: RegExp): number[] {
  const [, member] = /^\/proc\/(\d+)\//.exec(pathInMember(host, '/'))!;
  const namespace = readlinkSync(`/proc/${member}/ns/pid`);
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => {
      try {
        if (readlinkSync(`/proc/${pid}/ns/pid`) !== namespace) return false;
        return like.test(readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim());
      } catch {
        return false; // It has ended.
      }
    })
    .map(Number);
}

/** Likewise, as soon as there is one. */
export async function findSoon(host: HostName, like: RegExp): Promise<number[]> {
  return await soon(() => {
    const pids = find(host, like);
    return pids.length > 0 ? pids : null;
  }, `a process like ${like} on ${host}`);
}

/** Resolves when a host has put on disk what it has decided. */
export async function untilDecided(host: HostName, role: 'source' | 'destination'): Promise<void> {
  const directory = pathInMember(host, runDir);
  const isDecided = () => readdirSync(directory).some((id) => existsSync(`${directory}/${id}/decision-${role}`));
  await soon(() => (existsSync(directory) && isDecided() ? true : null), `a decision of the ${role}`);
}

async function soon<T>(look: () => T | null, what: string): Promise<T> {
  for (const deadline = Date.now() + patienceMs; ; await sleep(pollMs)) {
    const found = look();
    if (found !== null) return found;
    if (Date.now() > deadline) throw new Error(`no ${what} within ${patienceMs} ms`);
  }
}
