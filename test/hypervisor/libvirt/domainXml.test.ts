import { describe, expect, it } from 'vitest';
import { parseDomain } from '../../../hypervisor/index.js';

const domain = (inside: string, devices = '') => `
  <domain type='kvm' id='3'>
    <name>vm1</name><uuid>4bd6e6ce-dab0-4fbe-804e-9c8e9d8b2397</uuid>
    <memory unit='KiB'>1048576</memory>
    <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
    ${inside}
    <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>${devices}</devices>
  </domain>`;

describe("A domain's XML", () => {
  it('tells what the guest is', () => {
    expect(parseDomain(domain(''))).toMatchObject({
      name: 'vm1',
      uuid: '4bd6e6ce-dab0-4fbe-804e-9c8e9d8b2397',
      type: 'kvm',
      emulator: '/usr/bin/qemu-system-x86_64',
      machine: 'pc-q35-7.2',
      arch: 'x86_64',
      memoryBytes: 2 ** 30,
      isMemoryShared: false,
      user: null,
    });
  });

  it('keeps names that look like numbers', () => {
    expect(parseDomain(domain('').replace('<name>vm1<', '<name>007<')).name).toBe('007');
  });

  it('tells disks with their images, the ones below them, and drives without a medium', () => {
    const { disks } = parseDomain(
      domain(
        '',
        `<disk type='file' device='disk'>
           <driver name='qemu' type='qcow2' cache='none'/>
           <source file='/images/top.qcow2' index='1'/>
           <backingStore type='file'>
             <format type='raw'/><source file='/images/base.img'/><backingStore/>
           </backingStore>
           <target dev='vda' bus='virtio'/><serial>data</serial>
         </disk>
         <disk type='block' device='disk'>
           <driver name='qemu' type='raw'/><source dev='/dev/vg/lv'/><target dev='vdb'/><shareable/>
         </disk>
         <disk type='network' device='disk'><source protocol='rbd' name='pool/image'/><target dev='vdc'/></disk>
         <disk type='file' device='cdrom'><target dev='sda'/><readonly/></disk>`,
      ),
    );
    expect(disks.map(({ target, device, source }) => [target, device, source])).toEqual([
      ['vda', 'disk', { type: 'file', path: '/images/top.qcow2' }],
      ['vdb', 'disk', { type: 'block', path: '/dev/vg/lv' }],
      ['vdc', 'disk', { type: 'network', path: null }],
      ['sda', 'cdrom', null],
    ]);
    expect(disks[0]).toMatchObject({
      format: 'qcow2',
      cache: 'none',
      serial: 'data',
      backingPaths: ['/images/base.img'],
    });
    expect(disks[1]).toMatchObject({ shareable: true, readOnly: false });
    expect(disks[3]).toMatchObject({ readOnly: true });
  });

  it('tells devices that stay on their host', () => {
    const { hostDevices, vhostUser } = parseDomain(
      domain(
        '',
        `<hostdev mode='subsystem' type='pci'/><interface type='hostdev'/><interface type='network'/>
         <interface type='vhostuser'/><filesystem type='mount'><driver type='virtiofs'/></filesystem>`,
      ),
    );
    expect(hostDevices).toEqual(['pci host device', 'host network device']);
    expect(vhostUser).toEqual(['vhost-user network', 'virtiofs share']);
  });

  it.each([
    ["<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>", true],
    ["<memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>", true],
    ["<memoryBacking><access mode='shared'/></memoryBacking>", false],
    ["<memoryBacking><source type='memfd'/></memoryBacking>", false],
    [
      "<memoryBacking><hugepages/></memoryBacking><cpu><numa><cell id='0' memAccess='shared'/><cell id='1'/></numa></cpu>",
      false,
    ],
    ["<memoryBacking><hugepages/></memoryBacking><cpu><numa><cell id='0' memAccess='shared'/></numa></cpu>", true],
  ])('tells whether others can read its memory: %s', (inside, isShared) => {
    expect(parseDomain(domain(inside)).isMemoryShared).toBe(isShared);
  });

  it("tells the host's end of virtio-serial ports", () => {
    const { channels } = parseDomain(
      domain(
        '',
        `<channel type='unix'><source mode='bind' path='/run/a'/><target type='virtio' name='org.vmmig.agent.0' state='connected'/></channel>
         <channel type='unix'><source mode='bind' path='/run/q'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
         <channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>`,
      ),
    );
    expect([...channels]).toEqual([
      ['org.vmmig.agent.0', { path: '/run/a', isConnected: true }],
      ['org.qemu.guest_agent.0', { path: '/run/q', isConnected: false }],
    ]);
  });

  it('tells whom QEMU runs as where that is for the domain to say', () => {
    const other = "<seclabel type='static' model='apparmor'><label>x</label></seclabel>";
    const dac = (type: string, label: string) =>
      domain(`${other}<seclabel type='${type}' model='dac'><label>${label}</label></seclabel>`);
    expect(parseDomain(dac('static', '+64055:+109')).user).toBe('64055');
    expect(parseDomain(dac('static', 'libvirt-qemu:kvm')).user).toBe('libvirt-qemu');
    expect(parseDomain(dac('dynamic', '+64055:+109')).user).toBeNull();
  });

  it.each(['', '<domain>', '<network><name>x</name></network>', '<domain><devices/></domain>', 'error: no'])(
    'is not taken for one when it is %j',
    (xml) => {
      expect(() => parseDomain(xml)).toThrow(/no domain's XML/);
    },
  );
});
