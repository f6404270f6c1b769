/**
 * The debian guest's disks, made without mounting anything: device-mapper is not on every machine.
 *
 *     system  GPT │ 1: ext4 /boot │ 2: LVM, volume group debian │ root, first piece │ spare │ root, second piece │
 *     srv     xfs, the whole disk
 *
 * LVM's own tools write the volume group, on a loop device; the file system is made apart, and copied to where the volume
 * group has root's pieces.
 */
import { mkdir, readdir, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { LabError } from '../../errors.js';
import { copyRealFiles, writeRandom } from '../dataDisk.js';
import { layout } from './recipe.js';

const { bootMiB, extentMiB, rootMiB, servedMiB, spareMiB } = layout;

/** No device-mapper, and nothing of this machine's LVM: neither its devices nor its locks nor its backups. */
const lvmOptions = (device: string): string[] => [
  ...['--driverloaded', 'n', '--nolocking', '--config'],
  `devices { use_devicesfile=0 filter=["a|^${device}$|","r|.*|"] } backup { backup=0 archive=0 }`,
];

/** Writes `directory`/system.img from the tree at `root`, of which /boot becomes a partition. */
export async function buildSystemDisk(directory: string, root: string, signal?: AbortSignal): Promise<void> {
  const run = runner(signal);
  const file = (name: string) => join(directory, name);
  await rename(join(root, 'boot'), file('boot'));
  await mkdir(join(root, 'boot'));
  await run('mke2fs', [...ext4('boot'), '-d', file('boot'), file('boot.img'), `${bootMiB}M`]);
  await run('mke2fs', [...ext4('root'), '-d', root, file('root.img'), `${rootMiB[0] + rootMiB[1]}M`]);

  const volumeMiB = rootMiB[0] + spareMiB + rootMiB[1] + 2 * extentMiB;
  await writeFile(file('volumes.img'), '');
  await truncate(file('volumes.img'), volumeMiB * 2 ** 20);
  const pieces = await makeVolumes(file('volumes.img'), run);

  // One MiB for the partition table, and one at the end for its copy.
  const system = file('system.img');
  await writeFile(system, '');
  await truncate(system, (1 + bootMiB + volumeMiB + 1) * 2 ** 20);
  const table = `label: gpt\nstart=1MiB, size=${bootMiB}MiB, type=linux\nsize=${volumeMiB}MiB, type=lvm\n`;
  await run('sfdisk', ['--quiet', system], table);
  const volumesMiB = 1 + bootMiB;
  const copy = async (from: string, toMiB: number, fromMiB = 0, sizeMiB?: number): Promise<void> => {
    const range = [`skip=${fromMiB}`, ...(sizeMiB === undefined ? [] : [`count=${sizeMiB}`])];
    await run('dd', [`if=${file(from)}`, `of=${system}`, 'bs=1M', `seek=${toMiB}`, 'conv=sparse,notrunc', ...range]);
  };
  await copy('boot.img', 1);
  await copy('volumes.img', volumesMiB);
  let done = 0;
  for (const piece of pieces) {
    await copy('root.img', volumesMiB + piece.startMiB, done, piece.sizeMiB);
    done += piece.sizeMiB;
  }
  for (const name of ['boot', 'boot.img', 'root.img', 'volumes.img']) await rm(file(name), { recursive: true });
}

/** Makes the volume group in the file at `path`; returns where root's pieces are in it. */
async function makeVolumes(path: string, run: Runner): Promise<{ startMiB: number; sizeMiB: number }[]> {
  const device = (await run('losetup', ['--find', '--show', path])).trim();
  const lvm = (verb: string, ...args: string[]) => run('lvm', [verb, ...lvmOptions(device), ...args]);
  try {
    await lvm('pvcreate', '--dataalignment', '1m', device);
    // A volume group that is activated by itself would be, here, where udev sees the loop device.
    await lvm('vgcreate', '--setautoactivation', 'n', '--physicalextentsize', `${extentMiB}m`, 'debian', device);
    const create = ['--activate', 'n', '--zero', 'n', '--wipesignatures', 'n'];
    await lvm('lvcreate', ...create, '--name', 'root', '--size', `${rootMiB[0]}m`, 'debian');
    await lvm('lvcreate', ...create, '--name', 'spare', '--size', `${spareMiB}m`, 'debian');
    await lvm('lvextend', '--size', `+${rootMiB[1]}m`, 'debian/root');
    const fields = 'seg_start_pe,seg_size_pe,seg_pe_ranges';
    const list = await lvm('lvs', '--segments', '--noheadings', '-o', fields, '-S', 'lv_name=root', 'debian');
    return [...list.matchAll(/(\d+)\s+(\d+)\s+\S+:(\d+)-\d+/g)]
      .sort((a, b) => Number(a[1]) - Number(b[1]))
      .map(([, , size, first]) => ({ startMiB: 1 + Number(first) * extentMiB, sizeMiB: Number(size) * extentMiB }));
  } finally {
    await runner(undefined)('losetup', ['--detach', device]);
  }
}

/** Writes `directory`/srv.img: what nginx serves, half of it incompressible, and the list of its sums. */
export async function buildServedDisk(directory: string, signal?: AbortSignal): Promise<void> {
  const [random, real] = [join(directory, 'random'), join(directory, 'real')];
  const entries: string[] = [];
  const sums: string[] = [];
  for (const [tree, write] of [
    [random, writeRandom],
    [real, copyRealFiles],
  ] as const) {
    await mkdir(join(tree, 'files'), { recursive: true });
    sums.push(...(await write(tree, servedMiB / 2, signal)));
    for (const name of (await readdir(join(tree, 'files'))).sort()) {
      entries.push(`${name} ---644 0 0 ${join(tree, 'files', name)}`);
    }
  }
  const list = join(directory, 'SHA256SUMS');
  await writeFile(list, sums.join(''));
  // mkfs.xfs(8), "-p protofile": two numbers that it ignores, then the root directory's entries, "$" ends a directory.
  const prototype = ['/dev/null', '0 0', 'd--755 0 0', 'www d--755 0 0', `SHA256SUMS ---644 0 0 ${list}`];
  prototype.push('files d--755 0 0', ...entries, '$', '$', '$');
  await writeFile(join(directory, 'prototype'), `${prototype.join('\n')}\n`);
  const image = join(directory, 'srv.img');
  await writeFile(image, '');
  await truncate(image, 512 * 2 ** 20);
  await runner(signal)('mkfs.xfs', ['-q', '-L', 'srv', '-p', join(directory, 'prototype'), image]);
  for (const path of [random, real, list, join(directory, 'prototype')]) await rm(path, { recursive: true });
}

function ext4(label: string): string[] {
  return ['-q', '-t', 'ext4', '-L', label, '-m', '0', '-E', 'lazy_itable_init=0,lazy_journal_init=0'];
}

type Runner = (command: string, args: string[], input?: string) => Promise<string>;

function runner(signal: AbortSignal | undefined): Runner {
  return async (command, args, input) => {
    const stdin = input === undefined ? { stdin: 'ignore' as const } : { input };
    // lvm and mkfs.xfs are not on everybody's path.
    const env = { PATH: `${process.env.PATH}:/usr/sbin:/sbin`, LC_ALL: 'C' };
    const result = await execa(command, args, {
      ...stdin,
      env,
      reject: false,
      ...(signal ? { cancelSignal: signal } : {}),
    });
    signal?.throwIfAborted();
    if (result.failed) throw new LabError('VMMIG_LAB_COMMAND', `${command} failed: ${result.stderr || result.message}`);
    return String(result.stdout);
  };
}
