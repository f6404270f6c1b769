/** What the acceptance tests of guests that libvirt manages share. */
import { expect } from 'vitest';
import { type HostName, hostNames, type LabGuestOptions, labExec, virsh } from '../../lab/index.js';
import type { PreflightReport } from '../../migrate/index.js';
import { Guest, processes, processesOn } from './rig.js';

/** libvirt does not take the lab's directory for shared storage. */
export const unsafe = '--unsafe';

/** A domain with files in its page cache. */
export async function startDomain(name: string, options: LabGuestOptions = {}): Promise<Guest> {
  const data = { contents: 'random', filesMiB: 48, freeMiB: 16 } as const;
  const guest = await Guest.start(name, { memoryMiB: 192, libvirt: true, data, ...options });
  await guest.run('fill-cache');
  return guest;
}

/** `running`, `shut off`, … of each of a host's domains; nothing for those that it does not know. */
export async function domainsOn(host: HostName): Promise<Record<string, string>> {
  const names = (await virsh(host, ['list', '--all', '--name'])).split('\n').filter((name) => name.trim() !== '');
  const states = await Promise.all(names.map((name) => virsh(host, ['domstate', name])));
  return Object.fromEntries(names.map((name, index) => [name, states[index]!]));
}

/** Resolves when its end is complete: until then the next one would find its lock. */
export async function killDaemon(host: HostName): Promise<void> {
  const script = 'read pid </run/libvirtd.pid; kill -KILL $pid; while [ -e /proc/$pid ]; do sleep 0.01; done';
  await labExec(host, ['sh', '-c', script]);
}

/** Resolves when it answers. */
export async function startDaemon(host: HostName): Promise<void> {
  await labExec(host, ['libvirtd', '--daemon', '--pid-file', '/run/libvirtd.pid']);
}

export async function isPersistent(host: HostName, name: string): Promise<boolean> {
  return /^Persistent:\s+yes$/m.test(await virsh(host, ['dominfo', name]));
}

/** It runs on the host where it is, on no other, and neither daemon has anything to do with it. */
export async function expectToRunOnce(guest: Guest, counted: number): Promise<void> {
  await guest.expectToRun(counted);
  expect((await domainsOn(guest.host))[guest.name]).toBe('running');
  expect((await domainsOn(guest.otherHost))[guest.name] ?? 'shut off').toBe('shut off');
  await expectQuiet();
}

/** Neither daemon has anything to do any more, and of vmmig nothing is left. */
export async function expectQuiet(hosts: readonly HostName[] = hostNames): Promise<void> {
  for (const host of hosts) {
    const left = async () => {
      const vmmig = (await processesOn(host)).filter(
        ({ command }) => /vmmig|virsh/.test(command) && !processes.qemu.test(command),
      );
      const paths = ['/run/vmmig', '/var/lib/libvirt/qemu'];
      const { stdout } = await labExec(host, ['find', ...paths, '-name', 'vmmig-*', '-o', '-path', '/run/vmmig/*'], {
        reject: false,
      });
      return [...vmmig.map(({ command }) => command), ...stdout.split('\n').filter((line) => line !== '')];
    };
    await expect.poll(left, { timeout: 30_000, message: `on ${host}` }).toEqual([]);
    for (const [name, state] of Object.entries(await domainsOn(host)))
      if (state === 'running') expect(await virsh(host, ['domjobinfo', name])).toMatch(/^Job type:\s+None/);
  }
}

/** What preflight refuses a move to the other host for, sorted. */
export async function refusals(guest: Guest, ...more: string[]): Promise<string[]> {
  const asked = ['vmmig', 'preflight', guest.name, '--to', guest.otherHost, '--json', ...more] as const;
  const { exitCode, stdout } = await labExec(guest.host, [...asked], { reject: false });
  const { findings } = JSON.parse(stdout) as PreflightReport;
  const refused = findings.filter(({ severity }) => severity === 'refuse').map(({ code }) => code);
  expect(exitCode).toBe(refused.length > 0 ? 5 : 0);
  return refused.sort();
}
