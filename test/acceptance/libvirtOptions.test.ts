/** What can be asked for as of virsh, and agents that only libvirt has a way to. */
import { link, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { labExec, labPaths, virsh } from '../../lab/index.js';
import type { GuestList } from '../../migrate/index.js';
import { QGA_PORT, withQemuGa } from '../guest-agent/qga/qemuGa.js';
import { domainsOn, expectQuiet, isPersistent, refusals, startDomain, unsafe } from './domains.js';
import { fastWan, type Guest, isFull, Move, useLab } from './rig.js';

const filesMiB = 32;
const pagesOfMiB = 256;
const timeout = 240_000;
/** What the daemon has open, and what runs: nothing of vmmig's. */
const traces = `for f in /proc/$(pidof qemu-ga)/fd/*; do readlink $f; done | grep vmmig- || true
  for p in /proc/[0-9]*; do readlink $p/exe; done | grep vmmig || true; ls -A /run /tmp | grep vmmig || true`;

describe('A domain whose agent is qemu-guest-agent', () => {
  let directory: string;
  let guest: Guest;

  useLab({ ...fastWan, libvirt: '9.0' });

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'vmmig-qga-'));
    const { extraFiles } = await withQemuGa(directory, '/libvirt/has/its/own');
    guest = await startDomain('vm1', {
      data: { contents: 'random', filesMiB, freeMiB: 16 },
      agentPath: null,
      extraFiles: extraFiles!,
      libvirt: { devices: `<channel type='unix'><target type='virtio' name='${QGA_PORT}'/></channel>` },
    });
  }, 300_000);

  afterAll(() => rm(directory, { recursive: true, force: true }));

  it('is listed with it, and told what it could have spared when it is not asked', { timeout }, async () => {
    const { stdout } = await labExec(guest.host, ['vmmig', 'list', '--json']);
    const { guests } = JSON.parse(stdout) as GuestList;
    expect(guests).toMatchObject([{ vm: 'vm1', state: 'running', agent: true, agentVia: 'qemu-ga' }]);
    const told = async () =>
      Number(/^disk_caches (\d+)$/m.exec(await virsh(guest.host, ['dommemstat', 'vm1']))?.[1] ?? 0);
    await expect.poll(told, { timeout: 60_000 }).toBeGreaterThan(filesMiB * 1024);
    await guest.run('kill -STOP $(pidof qemu-ga)');
    const preflight = await labExec(guest.host, [
      'vmmig',
      'preflight',
      'vm1',
      '--to',
      guest.otherHost,
      unsafe,
      '--json',
    ]);
    await guest.run('kill -CONT $(pidof qemu-ga)');
    const { findings, estimate } = JSON.parse(preflight.stdout);
    expect(findings).toMatchObject([{ severity: 'warn', code: 'VMMIG_PREFLIGHT_NO_AGENT' }]);
    expect(estimate.pageCacheBytes).toBeGreaterThan(filesMiB * 2 ** 20);
  });

  it('leaves its page cache on the disk, and holds nothing afterwards that it did not hold before', {
    timeout,
  }, async () => {
    const { report } = await guest.teleport(unsafe);
    expect(report.agent).toMatchObject({ via: 'qemu-ga' });
    expect(report.pages.teleported).toBeGreaterThan(filesMiB * pagesOfMiB * 0.95);
    expect(report.findings).toEqual([]);
    expect(await guest.run(traces)).toBe('');
    expect(await guest.run('checksum')).toMatch(/failed 0$/);
    await expectQuiet();
  });

  it.runIf(isFull)(
    'gets another name where that is asked for, and its own when it comes back',
    {
      timeout,
    },
    async () => {
      const from = guest.host;
      const counted = await guest.count();
      // By which it is known there, shut off.
      expect(await refusals(guest, unsafe, '--dest-name', 'other')).toEqual(['VMMIG_DOMAIN_DESTINATION']);
      await virsh(guest.otherHost, ['undefine', 'vm1']);
      const move = guest.begin(unsafe, '--dest-name', 'other');
      expect((await move.ended).report).toMatchObject({ result: 'moved', vm: 'vm1' });
      expect((await domainsOn(guest.otherHost)).other).toBe('running');
      expect((await domainsOn(from)).vm1 ?? 'shut off').toBe('shut off');
      const back = new Move('teleport', guest.otherHost, 'other', from, [unsafe, '--dest-name', 'vm1']);
      expect((await back.ended).report).toMatchObject({ result: 'moved' });
      expect((await domainsOn(from)).vm1).toBe('running');
      expect((await domainsOn(guest.otherHost)).other).toBeUndefined();
      await guest.expectToRun(counted);
      await expectQuiet();
    },
  );

  it.runIf(isFull)('is given the XML for the destination, where its image has another path', { timeout }, async () => {
    const image = join(labPaths.shared(), 'vm1-data.img');
    const renamed = join(labPaths.shared(), 'renamed.img');
    await link(image, renamed);
    const xml = await virsh(guest.host, ['dumpxml', '--migratable', 'vm1']);
    const path = join(directory, 'destination.xml');
    await writeFile(path, xml.replaceAll(image, renamed));
    await guest.teleport(unsafe, '--persistent', '--xml', path);
    expect(await virsh(guest.host, ['domblklist', 'vm1'])).toContain(renamed);
    expect(await isPersistent(guest.host, 'vm1')).toBe(true);
    expect(await guest.run('checksum')).toMatch(/failed 0$/);
    await expectQuiet();
  });

  it.runIf(isFull)('stays where it is when libvirt does not take the XML', { timeout }, async () => {
    const counted = await guest.count();
    const xml = await virsh(guest.host, ['dumpxml', '--migratable', 'vm1']);
    const path = join(directory, 'larger.xml');
    await writeFile(path, xml.replace(/<memory unit='KiB'>\d+</, "<memory unit='KiB'>1048576<"));
    const { report } = await guest.begin(unsafe, '--xml', path).ended;
    expect(report).toMatchObject({ result: 'failed', vmLocation: 'source', error: { code: 'VMMIG_LIBVIRT_MIGRATE' } });
    await guest.expectToRun(counted);
    expect((await domainsOn(guest.otherHost)).vm1 ?? 'shut off').toBe('shut off');
    await expectQuiet();
    await writeFile(path, 'no XML');
    const { exitCode, stderr } = await labExec(
      guest.host,
      ['vmmig', 'teleport', 'vm1', '--to', guest.otherHost, unsafe, '--xml', path],
      { reject: false },
    );
    expect(stderr).toContain('VMMIG_USAGE_FILE');
    expect(exitCode).toBe(2);
  });

  it.runIf(isFull)(
    'is undefined on the source and not defined on the destination, where that is asked for',
    {
      timeout,
    },
    async () => {
      const from = guest.host;
      await guest.teleport(unsafe, '--undefine-source');
      expect(await domainsOn(from)).toEqual({});
      expect((await domainsOn(guest.host)).vm1).toBe('running');
      await expectQuiet();
    },
  );

  it('is refused a name that another one has there', { timeout }, async () => {
    const named = (name: string) => `<domain type='qemu'><name>${name}</name><memory unit='MiB'>64</memory>
      <os><type arch='x86_64' machine='q35'>hvm</type></os></domain>`;
    const path = join(labPaths.shared(), 'taken.xml');
    await writeFile(path, named('taken'));
    await virsh(guest.otherHost, ['define', path]);
    expect(await refusals(guest, unsafe, '--dest-name', 'taken')).toEqual(['VMMIG_DOMAIN_DESTINATION']);
    await virsh(guest.otherHost, ['undefine', 'taken']);
  });
});
