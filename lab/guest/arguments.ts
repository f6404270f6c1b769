/** The tiny guest's QEMU command line. Everything it names is at the same path on both of the lab's hosts. */
import { join } from 'node:path';
import { labPaths } from '../settings.js';
import type { TinyGuestImage } from './tinyGuest.js';

export interface GuestDisk {
  /** The block node's name, and the disk's serial unless one is given. */
  id: string;
  path: string;
  serial?: string;
  /** Default `raw`. */
  format?: string;
}

export interface GuestDevices {
  /** Where the guest's sockets, pid file and logs are. */
  dir: string;
  name: string;
  /** Default `q35`. */
  machine?: string;
  memoryMiB?: number;
  /** It never runs on a QEMU before 9.0, which would need two pages more. */
  hasRoundMemory?: boolean;
  cpus?: number;
  disks?: GuestDisk[];
  /** A network device on the guests' bridge. */
  network?: { mac: string };
  /** A port for vmmig's agent. Default true. */
  hasAgentPort?: boolean;
  /** A port for qemu-guest-agent. */
  qga?: boolean;
  /** A file to keep the guest's RAM in, shared (`memory-backend-file,share=on`). */
  memoryFile?: string;
  /** Starts as a migration's destination: `defer` or an address. */
  incoming?: string;
  /** Added at the end. */
  extraArgs?: string[];
}

export interface GuestPaths {
  qmpPath: string;
  agentPath: string;
  /** qemu-guest-agent's; of a domain it is where libvirt has it. */
  qgaPath: string;
  shellPath: string;
  consolePath: string;
  /** What the serial console printed. */
  consoleLogPath: string;
  pidPath: string;
  /** QEMU's own output. */
  logPath: string;
}

export function guestPaths(dir: string, name: string): GuestPaths {
  const path = (suffix: string) => join(dir, `${name}.${suffix}`);
  return {
    qmpPath: path('qmp'),
    agentPath: path('agent'),
    qgaPath: path('qga'),
    shellPath: path('shell'),
    consolePath: path('console'),
    consoleLogPath: path('console.log'),
    pidPath: path('pid'),
    logPath: path('qemu.log'),
  };
}

/** Arguments for QEMU, without the program's name. */
export function guestArguments(devices: GuestDevices, image: TinyGuestImage): string[] {
  const paths = guestPaths(devices.dir, devices.name);
  // Two pages more than asked for: QEMU before 9.0 loses writes of a TCG guest whose RAM is a multiple of 256 KiB, because
  // only then it clears its dirty log without telling TCG (fixed by its commit "physmem: Fix migration dirty bitmap
  // coherency with TCG memory access").
  const memoryKiB = (devices.memoryMiB ?? 1024) * 1024 + (devices.hasRoundMemory ? 0 : 8);
  const machine = devices.machine ?? 'q35';
  const socket = (id: string, path: string) => ['-chardev', `socket,id=${id},path=${path},server=on,wait=off`];
  return [
    ...['-name', devices.name, '-nodefaults', '-no-user-config', '-display', 'none'],
    ...['-machine', devices.memoryFile ? `${machine},memory-backend=ram0` : machine, '-accel', 'tcg', '-cpu', 'qemu64'],
    ...['-smp', String(devices.cpus ?? 1), '-m', `size=${memoryKiB}K`],
    ...(devices.memoryFile
      ? ['-object', `memory-backend-file,id=ram0,size=${memoryKiB}K,mem-path=${devices.memoryFile},share=on`]
      : []),
    ...['-kernel', image.kernel, '-initrd', image.initrd, '-append', image.append],
    ...(devices.disks ?? []).flatMap((disk) => [
      '-drive',
      `file=${disk.path},if=none,id=${disk.id},format=${disk.format ?? 'raw'},cache=none,discard=unmap`,
      '-device',
      `virtio-blk-pci,drive=${disk.id},serial=${disk.serial ?? disk.id}`,
    ]),
    ...['-device', 'virtio-serial-pci'],
    ...(devices.hasAgentPort === false
      ? []
      : [...socket('agent', paths.agentPath), '-device', 'virtserialport,chardev=agent,name=org.vmmig.agent.0']),
    ...[...socket('shell', paths.shellPath), '-device', 'virtserialport,chardev=shell,name=org.vmmig.lab.0'],
    ...(devices.qga
      ? [...socket('qga', paths.qgaPath), '-device', 'virtserialport,chardev=qga,name=org.qemu.guest_agent.0']
      : []),
    ...(devices.network
      ? [
          ...['-netdev', `tap,id=guests,script=${labPaths.joinBridge()},downscript=no`],
          ...['-device', `virtio-net-pci,netdev=guests,mac=${devices.network.mac}`],
        ]
      : []),
    '-chardev',
    `socket,id=console,path=${paths.consolePath},server=on,wait=off,logfile=${paths.consoleLogPath}`,
    ...['-serial', 'chardev:console'],
    ...['-qmp', `unix:${paths.qmpPath},server=on,wait=off`, '-pidfile', paths.pidPath],
    ...(devices.incoming ? ['-incoming', devices.incoming] : []),
    ...(devices.extraArgs ?? []),
  ];
}
