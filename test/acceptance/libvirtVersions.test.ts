/** Hosts as others set them up: QEMU as a user of its own, and a newer libvirt. */
import { beforeAll, describe, expect, it } from 'vitest';
import { domainsOn, expectQuiet, isPersistent, startDomain, unsafe } from './domains.js';
import { fastWan, type Guest, isFull, useLab } from './rig.js';

const noErrors = /\berrors 0\b/;
const timeout = 240_000;

describe.runIf(isFull).each([
  { what: 'whose QEMU runs as libvirt-qemu', libvirt: '9.0', user: 'libvirt-qemu' },
  { what: 'between two libvirts of version 11.3', libvirt: '11.3', user: null },
] as const)('A domain $what', ({ libvirt, user }) => {
  let guest: Guest;

  useLab({ ...fastWan, libvirt });

  beforeAll(async () => {
    guest = await startDomain('vm1', user === null ? {} : { libvirt: { user } });
  }, 300_000);

  it('is teleported there and back', { timeout }, async () => {
    await guest.run('pattern start 16 2000');
    for (const more of [[], ['--persistent', '--undefine-source']]) {
      const from = guest.host;
      const { report } = await guest.teleport(unsafe, ...more);
      expect(report.pages.teleported).toBeGreaterThan(10_000);
      expect(report.pages.mismatched).toBe(0);
      expect(await guest.run('pattern status')).toMatch(noErrors);
      expect((await domainsOn(guest.host)).vm1).toBe('running');
      expect((await domainsOn(from)).vm1 ?? 'shut off').toBe('shut off');
      await expectQuiet();
    }
    expect(await isPersistent(guest.host, 'vm1')).toBe(true);
    await guest.run('pattern stop');
    expect(await guest.run('checksum')).toMatch(/failed 0$/);
  });
});
