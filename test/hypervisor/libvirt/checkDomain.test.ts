import { describe, expect, it } from 'vitest';
import { checkDomain, type DomainInspection, parseDomain } from '../../../hypervisor/index.js';

const idle: DomainInspection = {
  name: 'vm1',
  user: null,
  uuid: '4bd6e6ce-dab0-4fbe-804e-9c8e9d8b2397',
  type: 'kvm',
  emulator: '/usr/bin/qemu-system-x86_64',
  arch: 'x86_64',
  machine: 'pc-q35-7.2',
  images: [],
  media: [],
  hostDevices: [],
  job: null,
  snapshots: 0,
  blockJobs: [],
  unsharedImages: [],
};

function found(more: Partial<DomainInspection>, unsafe = false): string[] {
  return checkDomain({ ...idle, ...more }, { unsafe }).map(({ severity, code }) => `${severity} ${code}`);
}

describe('A domain that is to leave its host', () => {
  it('may, when nothing speaks against it', () => {
    expect(found({})).toEqual([]);
  });

  it.each([
    ['libvirt is busy with it', { job: 'Outgoing migration' }, 'VMMIG_DOMAIN_BUSY'],
    ['a block job goes on', { blockJobs: ['mirror'] }, 'VMMIG_DOMAIN_BUSY'],
    ['it has snapshots', { snapshots: 2 }, 'VMMIG_DOMAIN_SNAPSHOT'],
    ['it has a host device', { hostDevices: ['pci host device'] }, 'VMMIG_HOST_DEVICE'],
    ['libvirt would call it unsafe', { unsharedImages: ['/images/a.img'] }, 'VMMIG_LIBVIRT_UNSAFE'],
  ] as const)('is refused when %s', (_, more, code) => {
    expect(found(more)).toEqual([`refuse ${code}`]);
  });

  it('is told of everything at once', () => {
    const everything = { job: 'Dump', blockJobs: ['commit'], snapshots: 1, hostDevices: ['usb host device'] };
    expect(found({ ...everything, unsharedImages: ['/a'] })).toHaveLength(5);
  });

  it('may be moved in spite of what libvirt calls unsafe, where that is said', () => {
    expect(found({ unsharedImages: ['/images/a.img'] }, true)).toEqual([]);
  });

  it('has the host’s devices in its XML', () => {
    const { hostDevices } = parseDomain(`<domain type='kvm'><name>vm1</name><devices>
      <hostdev mode='subsystem' type='pci'/><hostdev mode='subsystem' type='usb'/>
      <interface type='hostdev'/><interface type='bridge'/></devices></domain>`);
    expect(hostDevices).toEqual(['pci host device', 'usb host device', 'host network device']);
  });
});
