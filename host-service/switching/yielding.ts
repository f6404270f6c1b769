/**
 * Who yields to guests. Until a guest runs here, others do, and its own is still running elsewhere: what puts it together
 * yields to them. In its first moments it needs the processors more than whoever brings it the rest. To yield needs root to be
 * undone, so without root it is not begun.
 *
 * Where the kernel shares its time between sessions first (autogroup, sched(7)), a niceness counts for nothing beyond the
 * session that a process is in, and the session has one of its own.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';

const yieldingNiceness = 10;
/** Until the guest has gone through what it does all the time. */
const firstMomentsMs = 400;

export class Yielding {
  readonly #undo: (() => void)[] = [];

  /** Of the process's main thread, which is the one that loads, and of the session that it leads. */
  add(pid: number): void {
    if (process.getuid?.() !== 0) return;
    this.#change(mainThreadNiceness(pid), (niceness) => setPriority(pid, niceness));
    if (!leadsSession(pid)) return;
    const path = `/proc/${pid}/autogroup`;
    this.#change(sessionNiceness(path), (niceness) => writeFileSync(path, String(niceness)));
  }

  end(): void {
    for (const undo of this.#undo.splice(0).reverse()) undo();
  }

  #change(before: number | null, set: (niceness: number) => void): void {
    if (before === null || !succeeds(() => set(yieldingNiceness))) return;
    this.#undo.push(() => succeeds(() => set(before)));
  }
}

/** This process yields to a guest that is about to go on. */
export function yieldToFirstMoments(): void {
  const yielding = new Yielding();
  yielding.add(process.pid);
  setTimeout(() => yielding.end(), firstMomentsMs);
}

function mainThreadNiceness(pid: number): number | null {
  try {
    return getPriority(pid);
  } catch {
    return null;
  }
}

/** Others' are not for this process to slow down. */
function leadsSession(pid: number): boolean {
  try {
    const [, , , session] = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    return session === String(pid);
  } catch {
    return false;
  }
}

/** @returns null where the kernel knows no such thing */
function sessionNiceness(path: string): number | null {
  try {
    const niceness = /nice (-?\d+)/.exec(readFileSync(path, 'utf8'))?.[1];
    return niceness === undefined ? null : Number(niceness);
  } catch {
    return null;
  }
}

/** A process that has ended needs no niceness. */
function succeeds(change: () => void): boolean {
  try {
    change();
    return true;
  } catch {
    return false;
  }
}
