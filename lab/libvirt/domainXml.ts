/** A tiny guest as a libvirt domain. Everything it names is at the same path on both of the lab's hosts. */
import { createHash } from 'node:crypto';
import { type GuestDevices, guestPaths } from '../guest/arguments.js';
import type { TinyGuestImage } from '../guest/tinyGuest.js';
import { guestNetwork } from '../settings.js';

export interface DomainOptions {
  /** Keeps RAM in shared memory: a file in /dev/shm, or one without a name. */
  memory?: 'file' | 'memfd';
  /** Who QEMU runs as, instead of root: `libvirt-qemu` is what Debian has. */
  user?: string;
  /** More for `<devices>`, as it stands. */
  devices?: string;
}

/** What `virsh define` takes. `emulator` is the QEMU to start. */
export function domainXml(
  devices: Omit<GuestDevices, 'incoming' | 'extraArgs' | 'memoryFile'>,
  image: TinyGuestImage,
  emulator: string,
  options: DomainOptions = {},
): string {
  const paths = guestPaths(devices.dir, devices.name);
  const disks = (devices.disks ?? []).map(
    (disk, i) => `
    <disk type='${isBlock(disk.path) ? 'block' : 'file'}' device='disk'>
      <driver name='qemu' type='${text(disk.format ?? 'raw')}' cache='none' discard='unmap'/>
      <source ${isBlock(disk.path) ? 'dev' : 'file'}='${text(disk.path)}'/>
      <target dev='vd${String.fromCharCode(97 + i)}' bus='virtio'/>
      <serial>${text(disk.serial ?? disk.id)}</serial>
    </disk>`,
  );
  return `<domain type='qemu'>
  <name>${text(devices.name)}</name>
  <uuid>${domainUuid(devices.name)}</uuid>
  <memory unit='MiB'>${devices.memoryMiB ?? 1024}</memory>${memoryBacking(options.memory)}
  <vcpu>${devices.cpus ?? 1}</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>${text(image.kernel)}</kernel>
    <initrd>${text(image.initrd)}</initrd>
    <cmdline>${text(image.append)}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>
  <on_reboot>destroy</on_reboot>
  <devices>
    <emulator>${text(emulator)}</emulator>${disks.join('')}
    <controller type='usb' model='none'/>
    <controller type='virtio-serial'/>${devices.hasAgentPort === false ? '' : channel('org.vmmig.agent.0', paths.agentPath)}${channel('org.vmmig.lab.0', paths.shellPath)}${devices.qga ? guestAgentChannel : ''}${networkInterface(devices.network)}
    <serial type='unix'>
      <source mode='bind' path='${text(paths.consolePath)}'/>
      <log file='${text(paths.consoleLogPath)}' append='off'/>
    </serial>
    <memballoon model='virtio'><stats period='5'/></memballoon>${options.devices ?? ''}
  </devices>${options.user === undefined ? '' : label(options.user)}
</domain>
`;
}

/** The same for a name each time: defining a guest again replaces it. */
function domainUuid(name: string): string {
  const hex = createHash('sha256').update(`vmmig lab domain ${name}`).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

function isBlock(path: string): boolean {
  return path.startsWith('/dev/') && !path.startsWith('/dev/shm/');
}

function memoryBacking(memory: 'file' | 'memfd' | undefined): string {
  if (memory === undefined) return '';
  return `
  <memoryBacking><source type='${memory}'/><access mode='shared'/></memoryBacking>`;
}

function channel(name: string, path: string): string {
  return `
    <channel type='unix'>
      <source mode='bind' path='${text(path)}'/>
      <target type='virtio' name='${name}'/>
    </channel>`;
}

/** libvirt chooses the path, and talks to the agent itself. */
const guestAgentChannel = `
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>`;

function networkInterface(network: GuestDevices['network']): string {
  if (network === undefined) return '';
  return `
    <interface type='bridge'>
      <mac address='${network.mac}'/>
      <source bridge='${guestNetwork.bridge}'/>
      <model type='virtio'/>
    </interface>`;
}

/** Ownership by libvirt's DAC driver: the user's processes, and the files given to it while it runs. */
function label(user: string): string {
  return `
  <seclabel type='static' model='dac' relabel='yes'><label>${text(user)}:kvm</label></seclabel>`;
}

function text(value: string): string {
  return value.replace(/[&<>'"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
