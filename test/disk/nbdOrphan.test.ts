/** What becomes of qemu-nbd when the process that started it is killed, at whatever moment. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { LAUNCH } from '../../disk/nbd/qemuNbd.js';
import { Images, isAlive, qemuNbdsOf } from './images.js';

const openDiskPath = fileURLToPath(new URL('../../disk/index.ts', import.meta.url));
let images: Images;
let reader: ChildProcess;
let said: string;

beforeEach(async () => {
  images = await Images.open();
  await mkdir(images.path('run'));
  await images.img('create', '-qf', 'qcow2', 'disk.qcow2', '4M');
});
afterEach(async () => {
  reader.kill('SIGKILL');
  await images[Symbol.asyncDispose]();
});

/** A process that opens the image and keeps it open. */
async function startReader(script: string): Promise<void> {
  const image = JSON.stringify({ path: images.path('disk.qcow2'), format: 'qcow2' });
  const options = JSON.stringify({ runDirectory: images.path('run') });
  const code = `import { openDisk } from ${JSON.stringify(openDiskPath)};
    console.log('begin');
    const disk = await openDisk(${image}, ${options});
    ${script}
    console.log('open');
    setInterval(() => {}, 1000);`;
  reader = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  said = '';
  reader.stdout!.setEncoding('utf8').on('data', (text) => {
    said += text;
  });
  await untilSaid('begin');
}

async function untilSaid(word: string): Promise<void> {
  await expect.poll(() => said, { timeout: 45_000 }).toContain(word);
}

async function startedQemuNbd(): Promise<number> {
  await expect.poll(() => qemuNbdsOf(reader.pid!), { timeout: 45_000, interval: 5 }).toHaveLength(1);
  return (await qemuNbdsOf(reader.pid!))[0]!;
}

test('qemu-nbd ends with a reader that is killed', async () => {
  await startReader('await disk.read(0, 1);');
  const pid = await startedQemuNbd();
  await untilSaid('open');
  reader.kill('SIGKILL');
  await expect.poll(() => isAlive(pid), { timeout: 5000 }).toBe(false);
  expect(await readdir(images.path('run'))).toEqual([]);
});

test('qemu-nbd ends also when it was only being started, and when it hangs', async () => {
  await startReader('');
  const pid = await startedQemuNbd();
  process.kill(pid, 'SIGSTOP');
  reader.kill('SIGKILL');
  await expect.poll(() => isAlive(pid), { timeout: 5000 }).toBe(false);
});

test('qemu-nbd ends with a reader that exits without closing', async () => {
  await startReader('setTimeout(() => process.exit(0), 300);');
  const pid = await startedQemuNbd();
  await once(reader, 'exit');
  await expect.poll(() => isAlive(pid), { timeout: 5000 }).toBe(false);
});

test('nothing is started for a process that has gone', async () => {
  const orphan = spawn('sh', ['-c', LAUNCH, 'qemu-nbd', '1', '--version'], { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  orphan.stdout.on('data', (text) => {
    output += text;
  });
  expect(await once(orphan, 'close')).toEqual([0, null]);
  expect(output).toBe('');
});
