/**
 * A machine that is a guest itself pays for memory that its hypervisor has taken back: to touch a GiB of it for the first
 * time takes seconds where it takes a tenth of one otherwise, in whichever QEMU happens to need it. That is no part of a
 * move, so as much as a move needs is touched and freed right before each, ours and stock's alike.
 */
import { spawnSync } from 'node:child_process';

/** What the benchmarks' guests use of theirs, what the relays need, and the host's page cache. */
const bytes = 1.5 * 2 ** 30;

export function warmMemory(): void {
  const { status, stderr } = spawnSync(process.execPath, ['-e', `Buffer.alloc(${bytes}, 1)`], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`cannot touch as much memory as a move needs: ${stderr}`);
}
