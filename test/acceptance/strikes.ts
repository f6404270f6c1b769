/** What may happen to a migration, by the names that the rows of docs/failures.md have. */
import { expect } from 'vitest';
import { cutWan, type HostName, healWan, labExec } from '../../lab/index.js';
import { findSoon } from './hostProcesses.js';
import { type Guest, type Move, processes } from './rig.js';

export interface Strike {
  /** The command is started with these. */
  readonly options?: readonly string[];
  /** What has to be there before the command is. */
  readonly before?: (guest: Guest) => Promise<unknown>;
  readonly strike?: (move: Move, guest: Guest) => Promise<unknown>;
  /** Undoes it, when the command has ended. */
  readonly after?: (guest: Guest) => Promise<unknown>;
}

const killOn = (which: 'host' | 'otherHost', like: RegExp): Strike => ({
  strike: async (_, guest) => {
    for (const pid of await findSoon(guest[which], like)) process.kill(pid, 'SIGKILL');
  },
});

const cutFor = (ms: number): Strike => ({
  strike: async () => {
    await cutWan();
    await new Promise((resolve) => setTimeout(resolve, ms));
    await healWan();
  },
});

const runDir = '/run/vmmig';
const blocker = '/run/vmmig-test-blocker';

/** A file system of 64 KiB over the run directory; then full. */
async function limitDisk(host: HostName): Promise<void> {
  await labExec(host, ['sh', '-c', `mkdir -p ${runDir}; mount -t tmpfs -o size=64k,mode=700 tmpfs ${runDir}`]);
}

async function fillDisk(host: HostName): Promise<void> {
  await labExec(host, ['sh', '-c', `dd if=/dev/zero of=${runDir}/filling bs=4k 2>/dev/null; true`]);
}

async function emptyDisk(host: HostName): Promise<void> {
  await labExec(host, ['sh', '-c', `umount ${runDir}; rm -rf ${runDir}/filling`]);
}

/** Keeps a unix socket of that path busy until `release`. */
async function occupySocket(host: HostName, path: string): Promise<void> {
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => require('fs').writeFileSync(${JSON.stringify(blocker)}, String(process.pid)))`;
  await labExec(host, [
    'sh',
    '-c',
    `node -e '${script.replaceAll("'", '"')}' >/dev/null 2>&1 & until [ -s ${blocker} ]; do sleep 0.1; done`,
  ]);
}

async function release(host: HostName, path: string): Promise<void> {
  await labExec(host, ['sh', '-c', `kill $(cat ${blocker}); rm -f ${blocker} ${path}`]);
}

const qmpPath = ({ name }: Guest) => `/run/vmmig-lab/${name}.qmp`;

export const strikes: Readonly<Record<string, Strike>> = {
  'Ctrl-C': { strike: async (move) => move.signal('SIGINT') },
  SIGTERM: { strike: async (move) => move.signal('SIGTERM') },
  '`vmmig cancel`': {
    strike: async (move, { host, name }) => {
      const { exitCode, stdout } = await labExec(host, ['vmmig', 'cancel', name, '--json'], { reject: false });
      const { report, exitCode: ownExitCode } = await move.ended;
      expect(JSON.parse(stdout)).toEqual(report);
      expect(exitCode).toBe(ownExitCode);
    },
  },
  '`--timeout`': { options: ['--timeout', '8s'] },
  'the command, killed': killOn('host', processes.commandLine),
  "the source's service and relay, killed": killOn('host', processes.service),
  "the destination's service and relay, killed": killOn('otherHost', processes.service),
  "the source's QEMU, killed": killOn('host', processes.qemu),
  "the destination's QEMU, killed": killOn('otherHost', processes.qemu),
  'the SSH session, ended': {
    strike: async (_, { otherHost }) => {
      for (const pid of await findSoon(otherHost, /^sshd: root@notty/)) process.kill(pid, 'SIGKILL');
    },
  },
  'the link, cut for 1 s': cutFor(1_000),
  'the link, cut for 10 s': cutFor(10_000),
  'the link, cut for good': { options: ['--reconnect-timeout', '4s'], strike: () => cutWan(), after: () => healWan() },
  "the destination's disk, full": {
    before: ({ otherHost }) => limitDisk(otherHost),
    strike: (_, { otherHost }) => fillDisk(otherHost),
    after: ({ otherHost }) => emptyDisk(otherHost),
  },
  'the socket path, taken': {
    before: (guest) => occupySocket(guest.otherHost, qmpPath(guest)),
    after: (guest) => release(guest.otherHost, qmpPath(guest)),
  },
};
