import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { expect, test } from 'vitest';
import { CaptureBlock, HintPass, ProcessMemory } from '../../pager/index.js';
import { BatchBuilder } from '../../relay/link/batch.js';
import { until } from './peers.js';
import { pageBytes, RelayRig } from './rig.js';

const sourceOf = (guest: Buffer, reads: number[] = []) => ({
  read: (offset: number, lengthBytes: number, into: Buffer, start = 0) => {
    reads.push(offset);
    guest.copy(into, start, offset, offset + lengthBytes);
  },
  async *dataRuns(offset: number, lengthBytes: number) {
    yield { offset, lengthBytes };
  },
  nextData: (offset: number) => offset,
});

test('what is held no longer counts once, and not as another disk’s', async () => {
  const guest = randomBytes(256 * pageBytes);
  await using rig = await RelayRig.start(256, Buffer.alloc(4096), { heldLimitBytes: 0 });
  const place = { file: sourceOf(guest), fileOffset: 0 };
  await rig.source.sendAhead({ blocks: [{ name: 'pc.ram', lengthBytes: guest.length, place }], limitBytes: 2 ** 30 });
  await until(() => rig.source.state.backlogBytes === 0);
  const pages = Array.from({ length: 256 }, (_, at): [number, Buffer] => [
    at,
    guest.subarray(at * 4096, at * 4096 + 4096),
  ]);
  await rig.send([pages, []]);
  await rig.moved();
  expect(rig.source.state.counters.pages).toMatchObject({ seen: 256, sent: 256, teleported: 0, mismatched: 0 });
});

test('no more is read once no more may be held', () => {
  const guest = randomBytes(256 * pageBytes);
  const reads: number[] = [];
  const block = new CaptureBlock({ block: 0, lengthBytes: guest.length, file: sourceOf(guest, reads), fileOffset: 0 });
  const options = { limitBytes: 70 * pageBytes, isBackwards: true };
  const pass = new HintPass([block], () => {}, options);
  const builder = new BatchBuilder();
  while (!pass.isOver) {
    pass.fill(builder, 16);
    if (!builder.isEmpty) builder.take(false);
  }
  expect(reads.length).toBeLessThanOrEqual(6);
});

test('a process that ends while it is looked at has no more runs than were seen', async () => {
  const program = `
import ctypes, mmap, sys
m = mmap.mmap(-1, 40000 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
m.madvise(mmap.MADV_NOHUGEPAGE)
for page in (3, 16383): m[page * 4096] = 1
print(ctypes.addressof(ctypes.c_char.from_buffer(m)), flush=True)
sys.stdin.read()`;
  const child = spawn('python3', ['-c', program], { stdio: ['pipe', 'pipe', 'inherit'] });
  const address = Number((await createInterface(child.stdout)[Symbol.asyncIterator]().next()).value);
  await using memory = await ProcessMemory.open(child.pid!);
  const runs = memory.dataRuns(address, 40000 * 4096);
  expect((await runs.next()).value).toEqual({ offset: address + 3 * 4096, lengthBytes: 4096 });
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect((await runs.next()).value).toEqual({ offset: address + 16383 * 4096, lengthBytes: 4096 });
});
