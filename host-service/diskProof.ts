/** One host's part in telling whether both see the same disks: see disk/proof.ts. Nothing is written, and little is read. */
import { isAbsolute } from 'node:path';
import { DiskError, openDisk, proveSameDisk, sampleDisk, writersOf } from '../disk/index.js';
import { isRunning } from '../hypervisor/index.js';
import type { DiskComparison, Params, Results } from './protocol.js';
import { untilAborted } from './untilAborted.js';

/** Storage that takes longer is not waited for. */
const lookTimeoutMs = 10_000;

/** Null for an image that cannot be read here. */
export async function sampleDisks(
  { images }: Params<'source.sampleDisks'>,
  signal: AbortSignal,
): Promise<Results['source.sampleDisks']> {
  return await Promise.all(
    images.map(async ({ image, offsets }) => {
      try {
        return await inTime(signal, async () => {
          await using disk = await openDisk(image);
          return await sampleDisk(disk, offsets);
        });
      } catch (thrown) {
        signal.throwIfAborted();
        if (thrown instanceof DiskError) return null;
        throw thrown;
      }
    }),
  );
}

export async function compareDisks(
  { images }: Params<'destination.compareDisks'>,
  signal: AbortSignal,
): Promise<Results['destination.compareDisks']> {
  return await Promise.all(
    images.map(async ({ image, samples, mayGrow }): Promise<DiskComparison> => {
      try {
        return await inTime(signal, async () => {
          await using disk = await openDisk(image);
          if (samples === null) return { verdict: 'unproven', compared: 0, differing: [] };
          return await proveSameDisk(disk, samples, { mayGrow });
        });
      } catch (thrown) {
        signal.throwIfAborted();
        if (thrown instanceof DiskError) return { verdict: 'unreadable', compared: 0, differing: [] };
        throw thrown;
      }
    }),
  );
}

/** For each path, who on this host writes to it, but for the guest's own QEMU, should that be on this host, too. */
export async function diskWriters({
  paths,
  except,
}: Params<'destination.diskWriters'>): Promise<Results['destination.diskWriters']> {
  const own = except !== null && (await isRunning(except)) ? except.pid : null;
  return await Promise.all(
    paths.map(async (path) => {
      const writers = isAbsolute(path) ? await writersOf(path) : [];
      return writers.filter(({ pid }) => pid !== own).map(({ pid, name }) => `${name} (pid ${pid})`);
    }),
  );
}

async function inTime<T>(signal: AbortSignal, look: () => Promise<T>): Promise<T> {
  const timeout = AbortSignal.timeout(lookTimeoutMs);
  try {
    return await untilAborted(look(), AbortSignal.any([signal, timeout]));
  } catch (thrown) {
    if (signal.aborted || thrown !== timeout.reason) throw thrown;
    throw new DiskError('VMMIG_DISK_READ', `the image does not answer within ${lookTimeoutMs} ms`);
  }
}
