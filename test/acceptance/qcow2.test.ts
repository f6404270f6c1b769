import { join } from 'node:path';
import { execa } from 'execa';
import { expect, it } from 'vitest';
import { createDataDisk, labPaths } from '../../lab/index.js';
import { expectNothingLeft, fastWan, Guest, useLab } from './rig.js';

const filesMiB = 100;

useLab(fastWan);

it('A guest whose disk is a qcow2 over a raw image leaves its page cache on the disk', {
  timeout: 120_000,
}, async () => {
  const shared = labPaths.shared();
  await createDataDisk(join(shared, 'base.img'), { contents: 'random', filesMiB, freeMiB: 128 });
  const path = join(shared, 'data.qcow2');
  await execa('qemu-img', ['create', '-qf', 'qcow2', '-b', 'base.img', '-F', 'raw', path]);
  const guest = await Guest.start('vm1', {
    memoryMiB: filesMiB + 312,
    disks: [{ id: 'data', path, format: 'qcow2' }],
  });
  await guest.run('fill-cache');
  const { report } = await guest.teleport();
  expect(report.agent!.pages).toBeGreaterThan(filesMiB * 256 * 0.99);
  expect(report.pages.teleported).toBeGreaterThan(report.agent!.pages * 0.95);
  expect(report.bytes.wire).toBeLessThan((filesMiB * 2 ** 20) / 3);
  expect(await guest.run('checksum')).toMatch(/failed 0$/);
  await expectNothingLeft([guest]);
});
