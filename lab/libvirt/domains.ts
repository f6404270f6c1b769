/** Lab guests under libvirt. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { execa } from 'execa';
import { LabError } from '../errors.js';
import type { GuestDevices } from '../guest/arguments.js';
import type { TinyGuestImage } from '../guest/tinyGuest.js';
import { cancel, labExec, pathInMember, pidFromOutside } from '../host/members.js';
import { qemuVersionOn } from '../hostQemu.js';
import { type HostName, labPaths } from '../settings.js';
import { requireState } from '../state.js';
import { type DomainOptions, domainXml } from './domainXml.js';
import { domainEmulator } from './emulator.js';

/** Defines a guest as a domain of `host`, or defines it anew, and starts it. Returns QEMU's process id. */
export async function startDomain(
  host: HostName,
  devices: GuestDevices,
  image: TinyGuestImage,
  options: DomainOptions,
  signal?: AbortSignal,
): Promise<number> {
  const { qemu, libvirt } = await requireState();
  if (libvirt === null) {
    throw new LabError('VMMIG_LAB_UNSUPPORTED', 'The lab has no libvirt: run "vmmig lab up --libvirt"');
  }
  const emulator = await domainEmulator(qemuVersionOn(host, qemu));
  const boot = options.user === undefined ? image : await ownCopy(image, signal);
  const xmlPath = join(labPaths.hostDirectory(host), `${devices.name}.xml`);
  await writeFile(xmlPath, domainXml(devices, boot, emulator, options));
  await virsh(host, ['define', xmlPath], signal);
  await virsh(host, ['start', devices.name], signal);
  return domainPid(devices.name, host);
}

/** The process id of a running domain's QEMU, as this process sees it. */
export async function domainPid(name: string, host: HostName): Promise<number> {
  const path = pathInMember(host, `/run/libvirt/qemu/${name}.pid`);
  return pidFromOutside(host, Number(await readFile(path, 'utf8')));
}

/** Runs virsh on `host` and gives what it printed, trimmed. A failure is a `VMMIG_LAB_COMMAND` with what it said. */
export async function virsh(host: HostName, args: string[], signal?: AbortSignal): Promise<string> {
  const result = await labExec(host, ['virsh', '--quiet', ...args], { reject: false, ...cancel(signal) });
  signal?.throwIfAborted();
  if (result.failed) {
    const said = result.stderr.trim() || result.message;
    throw new LabError('VMMIG_LAB_COMMAND', `virsh ${args.join(' ')} failed on ${host}: ${said}`);
  }
  return result.stdout.trim();
}

/** libvirt gives a domain's kernel and initramfs to its user; those in the cache belong to every lab. */
async function ownCopy(image: TinyGuestImage, signal: AbortSignal | undefined): Promise<TinyGuestImage> {
  const copy = async (path: string): Promise<string> => {
    const to = join(labPaths.shared(), 'boot', basename(dirname(path)), basename(path));
    await mkdir(dirname(to), { recursive: true });
    await execa('cp', ['--reflink=auto', '--no-clobber', path, to], cancel(signal));
    return to;
  };
  return { ...image, kernel: await copy(image.kernel), initrd: await copy(image.initrd) };
}
