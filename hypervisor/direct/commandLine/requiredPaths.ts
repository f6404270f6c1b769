/** What a command line expects to find on its host. */
import { resolve } from 'node:path';
import { characterDeviceOf } from './characterDevices.js';
import { type CommandLineOption, isOn, lastValue, type OptionParts, parseArgument } from './options.js';

export interface RequiredPath {
  /** Absolute. */
  readonly path: string;
  /** Whether the path itself must exist, or the directory in which QEMU creates it. */
  readonly kind: 'existing' | 'created';
  readonly access: 'read' | 'write';
  /** The option that names it, such as `-kernel`. */
  readonly option: string;
  /** Whether the command line has it relative to the working directory. */
  readonly relative: boolean;
  /** The guest's RAM is in it. */
  readonly isMemory: boolean;
}

type Requirement = Pick<RequiredPath, 'path' | 'kind' | 'access'> & { readonly isMemory?: boolean };

/** Options whose whole argument is a file that QEMU reads. */
const READ_FILES = new Set(['kernel', 'initrd', 'dtb', 'L', 'option-rom']);
/** The same, for disks that the guest may write. */
const DISK_FILES = new Set(['hda', 'hdb', 'hdc', 'hdd', 'fda', 'fdb', 'pflash', 'sd', 'mtdblock']);
/** Keys that name a file to read, by option and, where it matters, by the implied first part. */
const READ_KEYS: Readonly<Record<string, readonly string[]>> = {
  acpitable: ['file', 'data'],
  smbios: ['file'],
  fw_cfg: ['file'],
  plugin: ['file'],
  virtfs: ['path'],
  fsdev: ['path'],
  device: ['romfile', 'sysfsdev', 'path', 'file'],
  object: ['dir', 'file', 'filename', 'kernel-hashes-file'],
  netdev: ['path', 'smb', 'tftp', 'script', 'downscript', 'helper', 'vhostdev', 'addr.path'],
  tpmdev: ['path', 'cancel-path'],
};
const PROTOCOL = /^[a-z0-9_+.-]+:/i;

/** Pseudo values of paths. */
const isNoPath = (value: string): boolean => value === '' || value === 'no' || value === 'none' || PROTOCOL.test(value);

/**
 * @param cwd the working directory that relative paths start from
 */
export function requiredPathsOf(options: readonly CommandLineOption[], cwd: string): RequiredPath[] {
  return options.flatMap((option) =>
    requirementsOf(option).map(({ path, kind, access, isMemory = false }) => ({
      path: resolve(cwd, path),
      kind,
      access,
      isMemory,
      option: option.name === null ? path : `-${option.name}`,
      relative: !path.startsWith('/'),
    })),
  );
}

function requirementsOf(option: CommandLineOption): Requirement[] {
  const { name, argument } = option;
  if (argument === null) return [];
  if (name === null || DISK_FILES.has(name)) return isNoPath(argument) ? [] : [existing(argument, 'write')];
  if (READ_FILES.has(name) || name === 'cdrom') return isNoPath(argument) ? [] : [existing(argument)];
  // A name without a slash is looked up in QEMU's own directories.
  if (name === 'bios') return argument.includes('/') ? [existing(argument)] : [];
  if (name === 'pidfile' || name === 'D') return [created(argument)];
  const device = characterDeviceOf(option);
  if (device !== null) {
    const log = device.logPath === null ? [] : [created(device.logPath)];
    if (device.kind === 'unix') return [device.server ? created(device.path) : existing(device.path, 'write'), ...log];
    if (device.kind === 'file') return [created(device.path), ...log];
    return device.kind === 'device' ? [existing(device.path, 'write'), ...log] : log;
  }
  const parts = parseArgument(argument);
  switch (name) {
    case 'drive':
      return imageOf(parts);
    case 'blockdev':
      return imagesOfNodes(parts);
    case 'mem-path':
      return [existing(argument, 'write')];
    case 'vnc':
      return parts.implied?.startsWith('unix:') ? [created(parts.implied.slice('unix:'.length))] : [];
    case 'trace':
      return filesOf(parts, ['file', 'events']);
    case 'object':
      return [...memoryFileOf(parts), ...filesOf(parts, READ_KEYS.object!)];
    default:
      return filesOf(parts, READ_KEYS[name] ?? []);
  }
}

const existing = (path: string, access: 'read' | 'write' = 'read'): Requirement => ({ path, kind: 'existing', access });
const created = (path: string): Requirement => ({ path, kind: 'created', access: 'write' });

function filesOf(parts: OptionParts, keys: readonly string[]): Requirement[] {
  const named = parts.entries.filter(([key, value]) => keys.includes(key) && value.includes('/') && !isNoPath(value));
  return named.map(([, path]) => existing(path));
}

/** Of `-drive`. */
function imageOf(parts: OptionParts): Requirement[] {
  const path = lastValue(parts, 'file') ?? lastValue(parts, 'file.filename');
  if (path === undefined || isNoPath(path)) return [];
  const readOnly = isReadOnly(parts) || lastValue(parts, 'media') === 'cdrom';
  return [existing(path, readOnly ? 'read' : 'write')];
}

/** `filename`, `file.filename`, `backing.file.filename`: what is behind the first layer is only read. */
function imagesOfNodes(parts: OptionParts): Requirement[] {
  const readOnly = isReadOnly(parts);
  return parts.entries
    .filter(([key, value]) => /(^|\.)filename$/.test(key) && !isNoPath(value))
    .map(([key, path]) => existing(path, readOnly || key.includes('backing.') ? 'read' : 'write'));
}

function isReadOnly(parts: OptionParts): boolean {
  return ['readonly', 'read-only', 'auto-read-only'].some((key) => isOn(lastValue(parts, key)));
}

/** A memory back end's file: QEMU creates it where it is missing, in a directory that must exist. */
function memoryFileOf(parts: OptionParts): Requirement[] {
  const path = lastValue(parts, 'mem-path');
  return path === undefined ? [] : [{ ...created(path), isMemory: true }];
}
