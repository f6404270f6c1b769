/** How an image is named to qemu-nbd. */
import { stat } from 'node:fs/promises';
import { DiskError } from '../errors.js';

export interface DiskImage {
  /**
   * An absolute path; or what else QEMU calls an image: a URI (`nbd://…`, `https://…`, `rbd:pool/image`), or
   * `json:{…}` with QEMU's own options, for what has no other name.
   */
  readonly path: string;
  /** QEMU's name of the format, such as `qcow2`. Never guessed: a guest could write what looks like another one. */
  readonly format: string;
  /** Of an image that QEMU encrypts: a file on this host that holds its key, or passphrase, and nothing else. */
  readonly keyFile?: string | undefined;
}

/** What the key is called among qemu-nbd's options. */
const SECRET = 'key';
/** Formats that qemu-nbd reads without further knowledge. */
const FORMATS = new Set(['qcow2', 'qed', 'qcow', 'vmdk', 'vdi', 'vhdx', 'vpc', 'parallels', 'bochs', 'cloop', 'dmg']);

export function isServedFormat(format: string): boolean {
  return FORMATS.has(format);
}

/** Whether it is a file or device of this host. */
export const isPath = (path: string): boolean => path.startsWith('/');

/**
 * The arguments that make qemu-nbd open an image to read it only, beside a QEMU that writes it.
 * @param direct - past the host's page cache
 * @throws DiskError VMMIG_DISK_OPEN
 */
export async function imageArguments({ path, format, keyFile }: DiskImage, direct: boolean): Promise<string[]> {
  const objects = keyFile === undefined ? [] : ['--object', `secret,id=${SECRET},file=${escaped(keyFile)}`];
  // Locks are for files; what a URI names is not locked by who reads it.
  if (!isPath(path) && !path.startsWith('json:')) return ['--read-only', ...objects, '--format', format, '--', path];
  const key = keyFile === undefined ? {} : keyOptions(format);
  const options = isPath(path) ? { driver: format, ...key, file: await fileOptions(path) } : parse(path);
  const shared = { ...options, 'read-only': true, 'force-share': true, ...(direct ? { cache: { direct } } : {}) };
  return ['--read-only', ...objects, '--', `json:${JSON.stringify(shared)}`];
}

/** QEMU knows by the image what it is encrypted with. */
function keyOptions(format: string): object {
  return format === 'luks' ? { 'key-secret': SECRET } : { encrypt: { 'key-secret': SECRET } };
}

async function fileOptions(path: string): Promise<object> {
  try {
    return { driver: (await stat(path)).isBlockDevice() ? 'host_device' : 'file', filename: path };
  } catch (cause) {
    throw new DiskError('VMMIG_DISK_OPEN', `cannot open disk image ${path}: ${(cause as Error).message}`, { cause });
  }
}

function parse(name: string): object {
  try {
    const options: unknown = JSON.parse(name.slice('json:'.length));
    if (typeof options === 'object' && options !== null && 'driver' in options) return options;
  } catch {
    // Said below.
  }
  throw new DiskError('VMMIG_DISK_OPEN', `${name} is not how QEMU names an image`);
}

/** In QEMU's option lists a comma is doubled. */
const escaped = (value: string): string => value.replaceAll(',', ',,');
