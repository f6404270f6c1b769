import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { CaptureLog, type LoggedCapture, readCaptureLog } from '../../../relay/store/captureLog.js';
import { PageStore } from '../../../relay/store/pageStore.js';

const pageBytes = 4096;
const blocks = [
  { name: 'vga', lengthBytes: 64 * pageBytes },
  { name: 'rom', lengthBytes: 8 * pageBytes },
];

describe('What is noted of a guest that is in no file', () => {
  let dir: string;
  let path: string;

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'vmmig-capture-'));
    path = join(dir, 'capture');
  });

  afterEach(() => rm(dir, { recursive: true, force: true }));

  function newStore(): PageStore {
    return new PageStore(blocks, { limitBytes: 8 * 2 ** 20, spillPath: null });
  }

  /** Notes more than one chunk. */
  function note(log: CaptureLog): void {
    const sink = log.noting(newStore());
    log.cache([Buffer.from('old')]);
    log.blocks(Buffer.from('named'));
    for (let page = 0; page < 64; page++) sink.putPage(0, page, Buffer.alloc(pageBytes, page), 0);
    log.cache([Buffer.from('a'), Buffer.from('b')]);
    sink.putFill(1, 2, 4, 0);
    sink.putPage(0, 3, Buffer.alloc(2 * pageBytes, 99), pageBytes);
    sink.putReference(1, 6, 2, 0, 0, Buffer.alloc(16), Buffer.alloc(2 * pageBytes, 7));
  }

  function pagesOf(logged: LoggedCapture): Map<string, number> {
    const found = new Map<string, number>();
    logged.replay({
      putPage: (block, page, source, start) => void found.set(`${block}/${page}`, source[start]!),
      putFill: (block, page, count, fill) => {
        for (let at = page; at < page + count; at++) found.set(`${block}/${at}`, fill);
      },
    });
    return found;
  }

  test('is its pages as they were last, its blocks and its last cache map', () => {
    const log = CaptureLog.create(path)!;
    note(log);
    log.end();
    const logged = readCaptureLog(path);
    expect([String(logged.blocks), logged.cache.map(String)]).toEqual(['named', ['a', 'b']]);
    const pages = pagesOf(logged);
    expect(pages.size).toBe(64 + 4 + 2);
    expect([pages.get('0/2'), pages.get('0/3'), pages.get('1/5'), pages.get('1/7')]).toEqual([2, 99, 0, 7]);
  });

  test('is worth nothing before its end, cut anywhere, or where it became too much', async () => {
    const unfinished = CaptureLog.create(path)!;
    note(unfinished);
    expect(() => readCaptureLog(path)).toThrow(/not whole/);
    unfinished.end();
    const whole = await readFile(path);
    for (const lengthBytes of [0, 7, 8, 20, 5000, whole.length - 1]) {
      await writeFile(path, whole);
      await truncate(path, lengthBytes);
      expect(() => readCaptureLog(path), `${lengthBytes} bytes`).toThrow(/not whole/);
    }
    const small = CaptureLog.create(join(dir, 'small'), 1000)!;
    note(small);
    small.end();
    expect(() => readCaptureLog(join(dir, 'small'))).toThrow(/not whole/);
    expect(() => readCaptureLog(join(dir, 'none'))).toThrow(/cannot be read/);
  });

  test('is never written into what is there already', () => {
    CaptureLog.create(path)![Symbol.dispose]();
    expect(CaptureLog.create(path)).toBeNull();
  });
});
