/** What a source's service leaves for another one, and what that makes of it. */
import { copyFile, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { decide, type Ledger, writeLedger } from '../../../host-service/commit/index.js';
import { bootId } from '../../../host-service/newLedger.js';
import { captureLogPath, findSourceRemains, noteBlocks } from '../../../host-service/switching/keptMemory.js';
import { processId } from '../../../hypervisor/index.js';
import { MemoryFile } from '../../../pager/index.js';
import { CaptureLog } from '../../../relay/store/captureLog.js';
import { ledgerOf, migrationId } from '../commit/runDirectory.js';

const lengthBytes = 2 ** 20;

describe("A source's service that has died", () => {
  let dir: string;
  let path: string;

  beforeEach(async () => {
    dir = await mkdtemp('/dev/shm/vmmig-kept-');
    path = join(dir, 'vm1.ram');
    await writeFile(path, Buffer.alloc(lengthBytes, 5));
  });

  afterEach(() => rm(dir, { recursive: true, force: true }));

  async function note(file: string): Promise<NonNullable<Ledger['memory']> | null> {
    await using memory = await MemoryFile.open(file);
    const place = { file: memory, fileOffset: 4096 };
    const blocks = await noteBlocks({
      blocks: [
        { name: 'ram0', lengthBytes: lengthBytes - 4096, place },
        { name: 'vga', lengthBytes: 4096, place: null },
      ],
      hintLimitBytes: 0,
    });
    const link = { key: Buffer.alloc(32).toString('base64'), connections: 2, bandwidthBps: null, compress: true };
    return blocks && { ...link, reconnectTimeoutMs: 1000, blocks };
  }

  /** As it is when the guest has gone and the service was killed. */
  async function leave(changes: Partial<Ledger> = {}): Promise<void> {
    const memory = await note(path);
    const left = { bootId: await bootId(), ...(memory === null ? {} : { memory }) };
    await writeLedger(dir, ledgerOf({ ...left, ...changes }));
    await decide(dir, migrationId, 'source', 'held');
    const log = CaptureLog.create(captureLogPath(dir, migrationId))!;
    log.blocks(Buffer.from('{}'));
    log.end();
  }

  it('leaves the guest’s memory, where it is the same file still', async () => {
    await leave();
    const { memory, logged, ledger } = await findSourceRemains(dir, migrationId);
    await using _memory = memory;
    expect(memory.blocks.map(({ name, place }) => [name, place?.file.path, place?.fileOffset])).toEqual([
      ['ram0', path, 4096],
      ['vga', undefined, undefined],
    ]);
    expect([String(logged.blocks), ledger.guest.name]).toEqual(['{}', 'vm1']);
  });

  it('leaves nothing of a guest whose memory was its own', async () => {
    const { memory: _, ...without } = ledgerOf({ bootId: await bootId() });
    await writeLedger(dir, without);
    await expect(findSourceRemains(dir, migrationId)).rejects.toMatchObject({ code: 'VMMIG_MEMORY_LOST' });
    await expect(findSourceRemains(dir, 'another')).rejects.toMatchObject({ code: 'VMMIG_TAKEOVER' });
  });

  it('leaves nothing that was replaced, not finished, or from before a restart', async () => {
    const lost = { code: 'VMMIG_MEMORY_LOST' };
    await leave();
    await rename(path, join(dir, 'old'));
    await copyFile(join(dir, 'old'), path);
    await expect(findSourceRemains(dir, migrationId)).rejects.toMatchObject(lost);
    await rename(join(dir, 'old'), path);
    await writeFile(captureLogPath(dir, migrationId), 'VMMIGCAP');
    await expect(findSourceRemains(dir, migrationId)).rejects.toMatchObject(lost);
    await leave({ bootId: '00000000-1111-2222-3333-444444444444' }).catch(() => {});
    await expect(findSourceRemains(dir, migrationId)).rejects.toMatchObject(lost);
  });

  it('is not taken for dead while it is there, nor before the guest may have gone', async () => {
    await leave({ service: await processId(process.pid) });
    await expect(findSourceRemains(dir, migrationId)).rejects.toMatchObject({ code: 'VMMIG_TAKEOVER' });
    await rm(join(dir, migrationId), { recursive: true });
    await writeLedger(dir, ledgerOf({ bootId: await bootId(), memory: (await note(path))! }));
    await expect(findSourceRemains(dir, migrationId)).rejects.toMatchObject({ code: 'VMMIG_TAKEOVER' });
  });

  it('leaves nothing in a file that has no name of its own', async () => {
    await using memory = await MemoryFile.open(path);
    const blocks = [{ name: 'ram0', lengthBytes, place: { file: memory, fileOffset: 0 } }];
    Object.defineProperty(memory, 'path', { value: '/proc/self/fd/3' });
    expect(await noteBlocks({ blocks, hintLimitBytes: 0 })).toBeNull();
  });
});
