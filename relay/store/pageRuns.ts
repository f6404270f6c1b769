/** Finds runs of pages in the table: a byte a page, millions of them, while the guest is stopped. */

/** Pages that are looked at in one comparison. */
const stride = 1024;

/**
 * Runs of pages in one state.
 *
 * @param states - one byte a page
 * @returns first page and count of each run, ascending
 */
export function runsOf(states: Uint8Array, state: number): Uint32Array {
  const bytes = Buffer.from(states.buffer, states.byteOffset, states.length);
  const uniform = Buffer.alloc(stride, state);
  let runs = new Uint32Array(1024);
  let used = 0;
  for (let page = runStart(bytes, state, 0); page >= 0; ) {
    const end = runEnd(bytes, state, uniform, page);
    if (used === runs.length) {
      const larger = new Uint32Array(used * 2);
      larger.set(runs);
      runs = larger;
    }
    runs[used++] = page;
    runs[used++] = end - page;
    page = runStart(bytes, state, end);
  }
  return runs.slice(0, used);
}

function runStart(bytes: Buffer, state: number, from: number): number {
  // Most gaps are short, and a call costs more than a few comparisons.
  for (let page = from; page < bytes.length; page++) {
    if (bytes[page] === state) return page;
    if (page % stride === 0) return bytes.indexOf(state, page);
  }
  return -1;
}

function runEnd(bytes: Buffer, state: number, uniform: Buffer, page: number): number {
  let end = page + 1;
  while (end < bytes.length && bytes[end] === state) {
    end++;
    // Long runs by comparing memory.
    if (end % stride === 0)
      while (end + stride <= bytes.length && bytes.compare(uniform, 0, stride, end, end + stride) === 0) end += stride;
  }
  return end;
}
