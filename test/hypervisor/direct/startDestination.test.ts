import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile, readlink, stat, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { endProcess, type ProcessId, startDestination } from '../../../hypervisor/index.js';
import { isRunning } from '../../../hypervisor/process.js';
import { binaryOf, eventually, tinyMachine, Workshop } from '../qemu.js';

let workshop: Workshop;
let options: Parameters<typeof startDestination>[0];

beforeEach(async () => {
  workshop = await Workshop.open();
  const qmpPath = workshop.file('b.qmp');
  const argv = [
    await binaryOf('7.2'),
    ...tinyMachine,
    '-qmp',
    `unix:${qmpPath},server=on,wait=off`,
    '-S',
    '-incoming',
    'defer',
  ];
  options = { argv, qmpPath, logPath: workshop.file('b.log'), pidPath: workshop.file('b.pid') };
});
afterEach(() => workshop[Symbol.asyncDispose]());

test('starts QEMU in a session of its own and says which process it is', async () => {
  await using guest = await startDestination({ ...options, cwd: workshop.path });
  expect(await guest.qmp.execute('query-status')).toMatchObject({ status: 'inmigrate', running: false });
  expect(await readFile(options.pidPath, 'utf8')).toBe(`${guest.pid} ${guest.startTime}\n`);
  expect((await stat(options.logPath)).mode & 0o777).toBe(0o600);
  const fields = (await readFile(`/proc/${guest.pid}/stat`, 'utf8')).split(') ')[1]!.split(' ');
  expect(fields[3], 'session').toBe(String(guest.pid));
  const descriptors = await Promise.all([0, 1, 2].map((fd) => readlink(`/proc/${guest.pid}/fd/${fd}`)));
  expect(descriptors).toEqual(['/dev/null', options.logPath, options.logPath]);
  expect(await readlink(`/proc/${guest.pid}/cwd`)).toBe(workshop.path);
});

test('is ended when it was not released, and leaves no pid file', async () => {
  let id: ProcessId;
  {
    await using guest = await startDestination(options);
    id = { pid: guest.pid, startTime: guest.startTime };
  }
  expect(await isRunning(id)).toBe(false);
  expect(existsSync(options.pidPath)).toBe(false);
});

test('goes on when it was released', async () => {
  let id: ProcessId;
  {
    await using guest = await startDestination(options);
    id = { pid: guest.pid, startTime: guest.startTime };
    guest.release();
    await guest.kill();
  }
  expect(await isRunning(id)).toBe(true);
  expect(existsSync(options.pidPath), 'nobody takes it for a leftover').toBe(false);
  await endProcess(id);
  expect(await isRunning(id)).toBe(false);
});

/** Starts a destination in a service of its own, which is then killed; gives QEMU's process. */
async function startInKilledService(release: boolean): Promise<ProcessId> {
  const module = fileURLToPath(new URL('../../../hypervisor/index.ts', import.meta.url));
  const script = workshop.file('service.mts');
  await writeFile(
    script,
    `import { startDestination } from ${JSON.stringify(module)};
     const guest = await startDestination(${JSON.stringify(options)});
     if (${release}) guest.release();
     console.log(JSON.stringify({ pid: guest.pid, startTime: guest.startTime }));
     setInterval(() => {}, 1000);`,
  );
  const service = spawn(process.execPath, ['--import', 'tsx', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const [line] = (await once(service.stdout, 'data')) as [Buffer];
    return JSON.parse(line.toString()) as ProcessId;
  } finally {
    const ended = once(service, 'exit');
    service.kill('SIGKILL');
    await ended;
  }
}

test('does not outlive a service that is killed before it released it', async () => {
  const id = await startInKilledService(false);
  await eventually(async () => !(await isRunning(id)));
  await eventually(async () => !existsSync(options.pidPath));
});

test('outlives a service that is killed after it released it', async () => {
  const id = await startInKilledService(true);
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(await isRunning(id)).toBe(true);
  await endProcess(id);
});

test("tells in QEMU's words why it did not start, and leaves nothing behind", async () => {
  const argv = [...options.argv, '-drive', 'file=/does/not/exist,format=raw'];
  await expect(startDestination({ ...options, argv })).rejects.toMatchObject({
    code: 'VMMIG_DESTINATION_START',
    message: expect.stringMatching(/ended \(1\)\n.*Could not open '\/does\/not\/exist'/s),
  });
  expect(existsSync(options.pidPath)).toBe(false);
});

test('refuses a monitor that another process has', async () => {
  await using guest = await startDestination(options);
  await expect(startDestination({ ...options, pidPath: workshop.file('c.pid') })).rejects.toMatchObject({
    code: 'VMMIG_DESTINATION_START',
    message: expect.stringContaining('listens'),
  });
  expect(await isRunning(guest)).toBe(true);
});

test('gives up on a monitor that never comes, and ends the process', async () => {
  const qmpPath = workshop.file('never.qmp');
  const started = startDestination({ ...options, qmpPath, timeoutMs: 500 });
  await expect(started).rejects.toMatchObject({ code: 'VMMIG_DESTINATION_START' });
  expect(existsSync(options.qmpPath), 'QEMU removes its socket when it ends').toBe(false);
});

test('stops starting when the signal is aborted', async () => {
  const signal = AbortSignal.timeout(300);
  const started = startDestination({ ...options, qmpPath: workshop.file('never.qmp'), signal });
  await expect(started).rejects.toMatchObject({ name: 'TimeoutError' });
  expect(existsSync(options.pidPath)).toBe(false);
  expect(existsSync(options.qmpPath)).toBe(false);
});

test('says when there is no such QEMU', async () => {
  const started = startDestination({ ...options, argv: ['/usr/bin/no-such-qemu'] });
  await expect(started).rejects.toMatchObject({
    code: 'VMMIG_DESTINATION_START',
    message: expect.stringContaining('ENOENT'),
  });
});
