/** The kernel says which pages of a memory file a process has used, read or written. */
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { describe, expect, test } from 'vitest';
import { RecentUse } from '../../hypervisor/index.js';

const pageBytes = 4096;
/** Brought in with a page that is read. */
const neighbours = 16;
const pages = 4096;

/** Has all pages of a memory file, and touches some when it is told to. */
const program = `
import ctypes, mmap, os, sys
f = os.memfd_create('memory')
os.ftruncate(f, ${pages} * 4096)
m = mmap.mmap(f, ${pages} * 4096)
for i in range(${pages}): m[i * 4096] = 1
print(ctypes.addressof(ctypes.c_char.from_buffer(m)), flush=True)
for line in sys.stdin:
    how, page = line.split()
    if how == 'write': m[int(page) * 4096] = 2
    print(m[int(page) * 4096], flush=True)
`;

const hasSwap = (await readFile('/proc/swaps', 'utf8')).trim().split('\n').length > 1;

async function withProcess(
  use: (pid: number, address: number, tell: (line: string) => Promise<string>) => Promise<void>,
) {
  const child = spawn('python3', ['-c', program], { stdio: ['pipe', 'pipe', 'inherit'] });
  try {
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    const next = async () => String((await lines.next()).value);
    const address = Number(await next());
    await use(child.pid!, address, async (line) => {
      child.stdin.write(`${line}\n`);
      return await next();
    });
  } finally {
    child.kill('SIGKILL');
  }
}

describe.skipIf(hasSwap || process.getuid?.() !== 0)('what a process has used of a memory file', () => {
  test('is what it has read or written since, and nothing is lost', async () => {
    await withProcess(async (pid, address, tell) => {
      const stretches = [
        { address, lengthBytes: 1024 * pageBytes },
        { address: address + 2048 * pageBytes, lengthBytes: pageBytes },
        { address: address + 3000 * pageBytes, lengthBytes: 1000 * pageBytes },
      ];
      using use = await RecentUse.watch(pid, stretches);
      expect(use).not.toBe(null);
      expect(use!.used().map((used) => used.indexOf(1))).toEqual([-1, -1, -1]);
      expect(await tell('write 100')).toBe('2');
      expect(await tell('read 3500')).toBe('1');
      const [first, second, third] = use!.used().map((used) => [...used.keys()].filter((page) => used[page] !== 0));
      expect(first).toEqual([100]);
      expect(second).toEqual([]);
      expect(third).toContain(500);
      expect(third!.length).toBeLessThanOrEqual(neighbours);
      for (const page of [0, 100, 2048, 3999]) expect(await tell(`read ${page}`)).toBe(page === 100 ? '2' : '1');
    });
  });

  test('is not known of a process that is not there', async () => {
    expect(await RecentUse.watch(2 ** 22 + 1, [{ address: 0, lengthBytes: pageBytes }])).toBe(null);
  });
});
