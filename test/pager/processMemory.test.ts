/** The memory of a process that maps some, touches a part of it, and says where it is. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { describe, expect, onTestFinished, test } from 'vitest';
import { ProcessMemory } from '../../pager/index.js';

const pageBytes = 4096;
/** Three looks' worth. */
const pages = 40_000;
const chunkPages = 16 * 1024;

/** Not in huge pages: these would come whole with the first page that is touched. The page behind the last one is none. */
const program = `
import ctypes, mmap, sys
m = mmap.mmap(-1, ${pages + 1} * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
try: m.madvise(mmap.MADV_NOHUGEPAGE)
except OSError: pass
address = ctypes.addressof(ctypes.c_char.from_buffer(m))
ctypes.CDLL(None).munmap(ctypes.c_void_p(address + ${pages} * 4096), ctypes.c_size_t(4096))
for page in map(int, sys.argv[1:]):
    m[page * 4096:(page + 1) * 4096] = bytes([page % 251 + 1]) * 4096
print(address, flush=True)
sys.stdin.read()
`;

interface Touched {
  readonly memory: ProcessMemory;
  readonly addressOf: (page: number) => number;
  readonly runs: (page?: number, count?: number, signal?: AbortSignal) => Promise<number[][]>;
  readonly end: () => Promise<void>;
}

async function processThatTouched(...touched: number[]): Promise<Touched> {
  const child = spawn('python3', ['-c', program, ...touched.map(String)], { stdio: ['pipe', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  const end = async () => {
    child.kill('SIGKILL');
    await exited;
  };
  onTestFinished(end);
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const address = Number((await lines.next()).value);
  const memory = await ProcessMemory.open(child.pid!);
  onTestFinished(() => memory[Symbol.asyncDispose]());
  const addressOf = (page: number) => address + page * pageBytes;
  const runs = async (page = 0, count = pages, signal?: AbortSignal) => {
    const found: number[][] = [];
    for await (const { offset, lengthBytes } of memory.dataRuns(addressOf(page), count * pageBytes, signal))
      found.push([(offset - address) / pageBytes, lengthBytes / pageBytes]);
    return found;
  };
  return { memory, addressOf, runs, end };
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, at) => from + at);
}

const readRefusal = expect.objectContaining({ code: 'VMMIG_MEMORY_FILE_READ' });

describe("a process's memory", () => {
  test('is read where it is, into the place that is asked for', async () => {
    const { memory, addressOf } = await processThatTouched(7, 8, 30_000);
    const into = Buffer.alloc(4 * pageBytes, 0xee);
    memory.read(addressOf(7), 2 * pageBytes, into, pageBytes);
    const page = (fill: number) => Buffer.alloc(pageBytes, fill);
    expect(into.equals(Buffer.concat([page(0xee), page(8), page(9), page(0xee)]))).toBe(true);
    memory.read(addressOf(30_000), pageBytes, into);
    expect(into.subarray(0, pageBytes).equals(page((30_000 % 251) + 1))).toBe(true);
    memory.read(addressOf(20_000), pageBytes, into);
    expect(into.subarray(0, pageBytes).equals(page(0))).toBe(true);
  });

  test('is told in runs of pages that were written to, and of no others', async () => {
    const { runs } = await processThatTouched(0, ...range(5, 9), 11, pages - 1);
    expect(await runs()).toEqual([
      [0, 1],
      [5, 4],
      [11, 1],
      [pages - 1, 1],
    ]);
    expect(await runs(6, 5)).toEqual([[6, 3]]);
    expect(await runs(6, 2)).toEqual([[6, 2]]);
    expect(await runs(12, 1000)).toEqual([]);
  });

  test('is told in whole runs where these are longer than a look, begin with one or end with one', async () => {
    const touched = [...range(chunkPages - 3, chunkPages), ...range(chunkPages + 1, 2 * chunkPages + 2)];
    const { runs } = await processThatTouched(...touched);
    expect(await runs()).toEqual([
      [chunkPages - 3, 3],
      [chunkPages + 1, chunkPages + 1],
    ]);
    expect(await runs(chunkPages - 2, chunkPages)).toEqual([
      [chunkPages - 2, 2],
      [chunkPages + 1, chunkPages - 3],
    ]);
    const other = await processThatTouched(...range(chunkPages - 2, chunkPages + 2), 2 * chunkPages);
    expect(await other.runs()).toEqual([
      [chunkPages - 2, 4],
      [2 * chunkPages, 1],
    ]);
  });

  test('is not known to have a hole before it was looked at', async () => {
    const { memory, addressOf } = await processThatTouched(3);
    expect(memory.nextData(addressOf(1))).toBe(addressOf(1));
  });

  test('is not looked at when that is not wanted any more, and no further than to the end of a look', async () => {
    const { runs, memory, addressOf } = await processThatTouched(3, 5, chunkPages + 5);
    await expect(runs(0, pages, AbortSignal.abort(new Error('enough')))).rejects.toThrow('enough');
    const stop = new AbortController();
    const found: number[] = [];
    const all = async () => {
      for await (const { offset } of memory.dataRuns(addressOf(0), pages * pageBytes, stop.signal)) {
        found.push((offset - addressOf(0)) / pageBytes);
        stop.abort(new Error('enough'));
      }
    };
    await expect(all()).rejects.toThrow('enough');
    expect(found).toEqual([3, 5]);
  });

  test('is an error where nothing is mapped, or no more than a part', async () => {
    const { memory, addressOf } = await processThatTouched(pages - 1);
    const into = Buffer.alloc(2 * pageBytes);
    expect(() => memory.read(pageBytes, pageBytes, into)).toThrow(readRefusal);
    expect(() => memory.read(addressOf(pages), pageBytes, into)).toThrow(readRefusal);
    expect(() => memory.read(addressOf(pages - 1), 2 * pageBytes, into)).toThrow(readRefusal);
    memory.read(addressOf(pages - 1), pageBytes, into);
  });

  test('is nothing, and cannot be read, when the process has ended', async () => {
    const { memory, addressOf, runs, end } = await processThatTouched(3);
    await end();
    expect(await runs()).toEqual([]);
    expect(() => memory.read(addressOf(3), pageBytes, Buffer.alloc(pageBytes))).toThrow(readRefusal);
  });

  test('is not to be had of a process that there is not', async () => {
    // The kernel's largest id is 2^22.
    await expect(ProcessMemory.open(2 ** 30)).rejects.toMatchObject({ code: 'VMMIG_MEMORY_FILE_OPEN' });
  });
});
