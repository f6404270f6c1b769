import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { eventually, Workshop } from '../qemu.js';

let workshop: Workshop;
let monitor: Server;
let said: string;
let clients: number;

/** A monitor that refuses at first, as QEMU does until it has noticed that its stream broke. */
beforeEach(async () => {
  workshop = await Workshop.open();
  said = '';
  clients = 0;
  monitor = createServer((socket) => {
    clients++;
    socket.on('error', () => {}).on('close', () => clients--);
    socket.on('data', (chunk) => {
      said += chunk.toString();
      if (said.split('\n').length === 3) listener.listen(workshop.file('recover'));
    });
  });
  const listener = createServer();
  monitor.once('close', () => listener.close());
  await once(monitor.listen(workshop.file('qmp')), 'listening');
});
afterEach(async () => {
  monitor.close();
  await workshop[Symbol.asyncDispose]();
});

/** A service with a guard on a process, which stands for QEMU; it is killed. */
async function killService(word: 'done' | 'nothing', qemu: number): Promise<void> {
  const module = fileURLToPath(new URL('../../../hypervisor/index.ts', import.meta.url));
  const script = workshop.file('service.mts');
  const paths = { decisionPath: workshop.file('decision'), socketPath: workshop.file('recover') };
  await writeFile(
    script,
    `import { connect } from 'node:net';
     import { processId, RecoveryGuard } from ${JSON.stringify(module)};
     const monitor = connect(${JSON.stringify(workshop.file('qmp'))}, async () => {
       const guard = new RecoveryGuard(await processId(${qemu}), monitor, ${JSON.stringify(paths)});
       if (${word === 'done'}) guard[Symbol.dispose]();
       setTimeout(() => console.log('ready'), 100);
     });
     setInterval(() => {}, 1000);`,
  );
  const service = spawn(process.execPath, ['--import', 'tsx', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    await once(service.stdout, 'data');
  } finally {
    const ended = once(service, 'exit');
    service.kill('SIGKILL');
    await ended;
  }
}

async function decide(): Promise<void> {
  await writeFile(workshop.file('decision'), 'run\n');
}

test('tells QEMU to listen when its service is killed, and frees the monitor then', async () => {
  await decide();
  await killService('nothing', process.pid);
  await eventually(async () => clients === 0);
  const commands = said
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as object);
  expect(commands).toHaveLength(2);
  expect(commands[1]).toMatchObject({
    'exec-oob': 'migrate-recover',
    arguments: { uri: `unix:${workshop.file('recover')}` },
  });
});

test('does nothing when all is well', async () => {
  await decide();
  await killService('done', process.pid);
  await eventually(async () => clients === 0);
  expect(said).toBe('');
});

test('does nothing when it was not decided that the guest runs', async () => {
  await killService('nothing', process.pid);
  await eventually(async () => clients === 0);
  expect(said).toBe('');
});

test('gives up when QEMU has ended', async () => {
  await decide();
  const qemu = spawn('sleep', ['60']);
  const ended = once(qemu, 'exit');
  await killService('nothing', qemu.pid!);
  qemu.kill('SIGKILL');
  await ended;
  await eventually(async () => clients === 0);
});
