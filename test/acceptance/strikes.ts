/** What may happen to a migration, by the names that the rows of docs/failures.md have. */
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { expect } from 'vitest';
import { cutWan, type HostName, healWan, labExec, labPaths, pathInMember } from '../../lab/index.js';
import { killDaemon, startDaemon } from './domains.js';
import { findSoon } from './hostProcesses.js';
import { type Guest, type Move, processes } from './rig.js';

export interface Strike {
  /** The command is started with these. */
  readonly options?: (guest: Guest) => readonly string[];
  /** The guest's agent has a part in it. */
  readonly withAgent?: true;
  /** What has to be there before the command is. */
  readonly before?: (guest: Guest) => Promise<unknown>;
  readonly strike?: (move: Move, guest: Guest) => Promise<unknown>;
  /** Undoes it, when the command has ended; the guest's `host` is where it was then. */
  readonly after?: (guest: Guest) => Promise<unknown>;
  /** A guest that has moved all the same has lost something that is no migration's to give back. */
  readonly spoilsGuest?: true;
}

const killOn = (which: 'host' | 'otherHost', like: RegExp): Strike => ({
  strike: async (_, guest) => {
    for (const pid of await findSoon(guest[which], like)) process.kill(pid, 'SIGKILL');
  },
});

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

const cutFor = (ms: number): Strike => ({
  strike: async () => {
    await cutWan();
    await sleep(ms);
    await healWan();
  },
});

const inShell = async (host: HostName, script: string) => await labExec(host, ['sh', '-c', script]);

const runDirectory = () => '/run/vmmig';
const stateDirectory = (host: HostName) => join(labPaths.hostDirectory(host), 'state');

/** A file system over a directory, with as much room as preflight asks for; then full. */
const fullDisk = (which: 'host' | 'otherHost', pathOn: (host: HostName) => string): Strike => {
  const on = (script: (path: string) => string) => (guest: Guest) =>
    inShell(guest[which], script(pathOn(guest[which])));
  const fill = on((path) => `dd if=/dev/zero of=${path}/filling bs=64k 2>/dev/null; true`);
  return {
    before: on((path) => `mkdir -p ${path}; mount -t tmpfs -o size=24m,mode=700 tmpfs ${path}`),
    strike: (_, guest) => fill(guest),
    after: on((path) => `umount -l ${path}`),
  };
};

const blocker = '/run/vmmig-test-blocker';

/** Listens there, at a path or a port, until `release`. */
async function occupy(host: HostName, where: string | number): Promise<void> {
  const script = `require('net').createServer().listen(${JSON.stringify(where)}, () => require('fs').writeFileSync(${JSON.stringify(blocker)}, String(process.pid)))`;
  await inShell(
    host,
    // A QEMU that was killed leaves its socket.
    `rm -f ${blocker} ${typeof where === 'string' ? where : ''}; node -e '${script.replaceAll("'", '"')}' >/dev/null 2>&1 & until [ -s ${blocker} ]; do sleep 0.1; done`,
  );
}

async function release(host: HostName, path = ''): Promise<void> {
  await inShell(host, `kill $(cat ${blocker}); rm -f ${blocker} ${path}`);
}

const qmpPath = ({ name }: Guest) => `/run/vmmig-lab/${name}.qmp`;

const linkPort = 49_152;
const narrowInventory = '/run/vmmig-test-inventory.yaml';

/** The one port that the relays may use. */
const takenPort: Strike = {
  options: () => ['--inventory', narrowInventory],
  before: async ({ host, otherHost }) => {
    // Each host is a mapping of its own in the lab's inventory.
    const narrowed = `s/^\\( *\\)\\(ssh:.*\\)$/\\1\\2\\n\\1linkPorts: ${linkPort}/`;
    await inShell(host, `sed '${narrowed}' ${labPaths.inventory()} > ${narrowInventory}`);
    await occupy(otherHost, linkPort);
  },
  after: async ({ host, otherHost }) => {
    await inShell(host, `rm -f ${narrowInventory}`);
    await release(otherHost);
  },
};

const dataDisk = ({ name }: Guest) => join(labPaths.shared(), `${name}-data.img`);
const serverPidFile = ({ otherHost }: Guest) => join(labPaths.hostDirectory(otherHost), 'storage.pid');

async function signalStorage(guest: Guest, signal: NodeJS.Signals): Promise<void> {
  process.kill(Number(await readFile(serverPidFile(guest), 'utf8')), signal);
}

/**
 * Only on the destination the guest's disk is read through a program, which can be stopped as storage that does not answer.
 * It runs outside of that host, where nobody takes it for one that writes to the disk.
 */
const storage = (signal: NodeJS.Signals): Strike => ({
  withAgent: true,
  before: async (guest) => {
    const path = dataDisk(guest);
    const node = `driver=file,node-name=disk,filename=${path},locking=off`;
    const served = `type=fuse,id=disk,node-name=disk,mountpoint=${path},writable=on`;
    const mounts = `--mount=${pathInMember(guest.otherHost, '/').replace(/root\/$/, 'ns/mnt')}`;
    const serve = ['qemu-storage-daemon', '--blockdev', node, '--export', served, '--pidfile', serverPidFile(guest)];
    await execa('nsenter', [mounts, ...serve, '--daemonize'], { stdio: 'ignore' });
  },
  strike: (_, guest) => signalStorage(guest, signal),
  after: async (guest) => {
    await signalStorage(guest, 'SIGKILL').catch(() => {});
    await rm(serverPidFile(guest), { force: true });
    await inShell(guest.otherHost, `umount -l ${dataDisk(guest)}; true`);
  },
  spoilsGuest: true,
});

/** One that was stopped goes on in a while, wherever the guest is by then. */
const agentOf = (strike: string): Strike => ({
  withAgent: true,
  strike: (_, guest) => guest.run(`agent=$(pidof vmmig-agent); ${strike}`),
});

const daemonKilled = (which: 'host' | 'otherHost'): Strike => ({
  strike: (_, guest) => killDaemon(guest[which]),
  after: (guest) => startDaemon(guest[which]),
});

const daemonRestarted = (which: 'host' | 'otherHost'): Strike => ({
  strike: async (_, guest) => {
    await killDaemon(guest[which]);
    await sleep(1_000);
    await startDaemon(guest[which]);
  },
});

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
  '`--timeout`': { options: () => ['--timeout', '8s'] },
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
  "the guest's agent, killed": agentOf('kill -KILL $agent'),
  "the guest's agent, silent": agentOf('kill -STOP $agent; (sleep 60; kill -CONT $agent) >/dev/null 2>&1 </dev/null &'),
  'the link, cut for 1 s': cutFor(1_000),
  'the link, cut for 10 s': cutFor(10_000),
  'the link, cut for good': {
    options: () => ['--reconnect-timeout', '4s'],
    strike: () => cutWan(),
    after: () => healWan(),
  },
  "the source's disk, full": fullDisk('host', runDirectory),
  "the destination's disk, full": fullDisk('otherHost', runDirectory),
  'the disk of the page store, full': {
    ...fullDisk('host', stateDirectory),
    options: () => ['--spill'],
  },
  "the destination's storage, gone": storage('SIGKILL'),
  "the destination's storage, silent": storage('SIGSTOP'),
  'the socket path, taken': {
    before: (guest) => occupy(guest.otherHost, qmpPath(guest)),
    after: (guest) => release(guest.otherHost, qmpPath(guest)),
  },
  'the port, taken': takenPort,
  'virsh, killed': killOn('host', /^virsh .* migrate /),
  "the source's libvirtd, killed": daemonKilled('host'),
  "the source's libvirtd, restarted": daemonRestarted('host'),
  "the destination's libvirtd, killed": daemonKilled('otherHost'),
  "the destination's libvirtd, restarted": daemonRestarted('otherHost'),
};
