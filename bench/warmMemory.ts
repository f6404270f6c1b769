/**
 * A machine that is a guest itself pays for memory that its hypervisor has taken back: to touch a GiB of it for the first
 * time takes seconds where it takes a tenth of one otherwise, in whichever QEMU happens to need it. That is no part of a
 * move, so as much as a move needs is touched and freed right before each, ours and stock's alike: in pages of both sizes,
 * which the kernel gives from different places.
 */
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';

const mebibyte = 2 ** 20;
/** What the benchmarks' guests use of theirs, and what the relays need; QEMU has it in huge pages, too. */
const hugeBytes = 1536 * mebibyte;
/** Besides that, and for the host's page cache. */
const smallBytes = 768 * mebibyte;

const touch = `
  const koffi = require(${JSON.stringify(createRequire(import.meta.url).resolve('koffi'))});
  const madvise = koffi.load(null).func('int madvise(void *address, size_t lengthBytes, int advice)');
  const huge = Buffer.allocUnsafeSlow(${hugeBytes});
  const first = 4096 - Number(koffi.address(huge) & 4095n);
  madvise(huge.subarray(first), ${hugeBytes} - 4096, 14);
  huge.fill(1);
  Buffer.alloc(${smallBytes}, 1);
`;

export function warmMemory(): void {
  const { status, stderr } = spawnSync(process.execPath, ['-e', touch], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`cannot touch as much memory as a move needs: ${stderr}`);
}
