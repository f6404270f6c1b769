/** Between two "hosts" whose directories hold the images: both sides' real looks, without the network between them. */
import { copyFile, open, rm } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { compareDisks, diskWriters, sampleDisks } from '../../host-service/diskProof.js';
import { processId } from '../../hypervisor/process.js';
import { proveDisks } from '../../migrate/diskProof.js';
import type { ImagePair } from '../../migrate/plan.js';
import { Images, KiB, MiB } from '../disk/images.js';

const signal = new AbortController().signal;
let images: Images;
/** Called before each look of the destination. */
let beforeComparing: () => Promise<unknown> = async () => {};
/** Who writes to the guest's disks by right. */
let guest = { pid: 0, startTime: 0 };

beforeAll(async () => {
  images = await Images.open();
  await images.raw(
    'disk.raw',
    64 * MiB,
    [0, MiB, 64 * MiB - 4 * KiB].map((at) => [at, 4 * KiB] as const),
  );
  await images.img('convert', '-f', 'raw', '-O', 'qcow2', 'disk.raw', 'disk.qcow2');
});
afterEach(() => {
  beforeComparing = async () => {};
  guest = { pid: 0, startTime: 0 };
});
afterAll(() => images[Symbol.asyncDispose]());

function pairOf(here: string, there: string, format: string, device: object = {}): ImagePair {
  const image = (name: string) => ({ path: images.path(name), format });
  const facts = { readOnly: false, shareable: false, isEncrypted: false, imageInode: 1, ...device };
  return { here: image(here), there: image(there), device: facts } as ImagePair;
}

async function prove(...pairs: ImagePair[]) {
  const handlers: Record<string, (params: never) => Promise<unknown>> = {
    'source.sampleDisks': (params) => sampleDisks(params, signal),
    'destination.compareDisks': async (params) => {
      await beforeComparing();
      return await compareDisks(params, signal);
    },
    'destination.diskWriters': diskWriters,
  };
  const side = { rpc: { request: (method: string, params: unknown) => handlers[method]!(params as never) } };
  const plan = {
    images: pairs,
    restorable: pairs.filter((pair) => !pair.device.isEncrypted).map(({ there }) => there),
  };
  const { findings, unreadable } = await proveDisks({
    source: side,
    destination: side,
    plan,
    inspection: { process: guest },
  } as never);
  return { codes: findings.map(({ severity, code }) => `${severity} ${code}`), unreadable, findings };
}

async function write(name: string, at: number, text: string): Promise<void> {
  await using file = await open(images.path(name), 'r+');
  await file.write(Buffer.from(text.padEnd(512)), 0, 512, at);
  await file.sync();
}

const nothing = { codes: [], unreadable: [], findings: [] };

describe('The disk on the destination', () => {
  it('is found to be the guest’s, in whatever format', async () => {
    expect(await prove(pairOf('disk.raw', 'disk.raw', 'raw'), pairOf('disk.qcow2', 'disk.qcow2', 'qcow2'))).toEqual(
      nothing,
    );
  });

  it.each([
    ['raw', 'disk.raw', 'raw', MiB],
    ['qcow2', 'disk.qcow2', 'qcow2', 0],
  ])('is refused when it is another one of the same size: %s', async (_, name, format) => {
    await copyFile(images.path('disk.raw'), images.path('other.raw'));
    await write('other.raw', MiB, 'another superblock');
    if (format === 'qcow2') await images.img('convert', '-f', 'raw', '-O', format, 'other.raw', 'other.qcow2');
    const { codes, findings } = await prove(pairOf(name, `other.${format}`, format));
    expect(codes).toEqual(['refuse VMMIG_DISK_DIFFERENT']);
    expect(findings[0]!.message).toContain(images.path(`other.${format}`));
  });

  it('is not taken for another one because the guest writes all the time', async () => {
    let written = 0;
    guest = (await processId(process.pid))!;
    beforeComparing = async () => {
      written += 1;
      await write('disk.raw', MiB, `the ${written}. superblock`);
    };
    expect(await prove(pairOf('disk.raw', 'disk.raw', 'raw'))).toEqual(nothing);
    expect(written).toBeGreaterThan(1);
  });

  it('is told by the file that holds it when what the guest reads is encrypted', async () => {
    const encrypted = { isEncrypted: true };
    expect(await prove(pairOf('disk.qcow2', 'disk.qcow2', 'qcow2', encrypted))).toEqual(nothing);
    await images.img('create', '-q', '-f', 'qcow2', 'empty.qcow2', '64M');
    const { codes } = await prove(pairOf('disk.qcow2', 'empty.qcow2', 'qcow2', encrypted));
    expect(codes).toEqual(['refuse VMMIG_DISK_DIFFERENT']);
  });

  it('is not referred to when it cannot be read there', async () => {
    await rm(images.path('gone.qcow2'), { force: true });
    const { codes, unreadable } = await prove(
      pairOf('disk.raw', 'disk.raw', 'raw'),
      pairOf('disk.qcow2', 'gone.qcow2', 'qcow2'),
    );
    // That it is missing, other checks say.
    expect(codes).toEqual([]);
    expect(unreadable).toEqual([1]);
  });

  it('cannot be told when there is nothing in it, and is said to be so unless its inode tells', async () => {
    await images.raw('empty.raw', 8 * MiB, []);
    expect(await prove(pairOf('empty.raw', 'empty.raw', 'raw'))).toEqual(nothing);
    const { codes } = await prove(pairOf('empty.raw', 'empty.raw', 'raw', { imageInode: null }));
    expect(codes).toEqual(['warn VMMIG_DISK_IMAGE']);
  });

  it('is refused while somebody there writes to it, unless that is meant to be', async () => {
    await using _writer = await open(images.path('disk.raw'), 'r+');
    const { codes, findings } = await prove(pairOf('disk.raw', 'disk.raw', 'raw'));
    expect(codes).toEqual(['refuse VMMIG_DISK_IN_USE']);
    expect(findings[0]!.message).toContain(`(pid ${process.pid})`);
    expect(await prove(pairOf('disk.raw', 'disk.raw', 'raw', { shareable: true }))).toEqual(nothing);
    expect(await prove(pairOf('disk.raw', 'disk.raw', 'raw', { readOnly: true }))).toEqual(nothing);
  });

  it('may be read there by others', async () => {
    await using _reader = await open(images.path('disk.raw'), 'r');
    expect(await prove(pairOf('disk.raw', 'disk.raw', 'raw'))).toEqual(nothing);
  });
});
