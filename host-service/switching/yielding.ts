/**
 * Until a guest runs here, others do, and its own is still running elsewhere: what puts it together yields to them. It
 * needs root to be undone, so without root it is not begun.
 */
import { getPriority, setPriority } from 'node:os';

const yieldingNiceness = 10;

export class Yielding {
  /** Niceness before, by process. */
  readonly #before = new Map<number, number>();

  /** Of the process's main thread, which is the one that loads or relays. */
  add(pid: number): void {
    if (process.getuid?.() !== 0) return;
    unlessGone(() => {
      this.#before.set(pid, getPriority(pid));
      setPriority(pid, yieldingNiceness);
    });
  }

  end(): void {
    for (const [pid, niceness] of this.#before) unlessGone(() => setPriority(pid, niceness));
    this.#before.clear();
  }
}

function unlessGone(work: () => void): void {
  try {
    work();
  } catch {
    // The process has ended.
  }
}
