/** The guest's disks as QEMU sees them: images, and where they are attached. */
import { stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { BlockInfo, PciDeviceInfo } from '../qmp/index.js';
import { QmpCommandError } from '../qmp/index.js';
import type { BlockDevice } from './inspection.js';
import type { QmpMonitor } from './qmpMonitor.js';

/** Drivers whose nodes are plain images: a disk on one of them is a raw one. */
const RAW_DRIVERS = new Set(['raw', 'file', 'host_device']);
/** Controllers and objects between a disk and its PCI device; QEMU's answers are not trusted to end. */
const DEEPEST_TREE = 16;
/** The PCI bus that the machine itself provides. */
const ROOT_BUS = /^(pci|pcie)\.0$/;

/**
 * @param cwd QEMU's working directory, which relative image paths start from
 */
export async function inspectBlockDevices(qmp: QmpMonitor, cwd: string, signal?: AbortSignal): Promise<BlockDevice[]> {
  const [blocks, buses] = await Promise.all([
    qmp.execute('query-block', {}, { signal }),
    // Machines without PCI do not know the command's result.
    qmp.execute('query-pci', {}, { signal }).catch(orNull),
  ]);
  const devices = buses?.flatMap((bus) => bus.devices) ?? [];
  return await Promise.all(blocks.map((block) => inspectBlockDevice(new DeviceTree(qmp, devices, signal), block, cwd)));
}

async function inspectBlockDevice(tree: DeviceTree, block: BlockInfo, cwd: string): Promise<BlockDevice> {
  const qomPath = block.qdev === undefined || block.qdev === '' ? null : absoluteQomPath(block.qdev);
  const { inserted } = block;
  const imagePath = inserted === undefined ? null : imagePathOf(inserted.image.filename, cwd);
  const image = imagePath === null ? null : await stat(imagePath).catch(() => null);
  const [serial, shareable] =
    qomPath === null ? [] : await Promise.all(['serial', 'share-rw'].map((name) => tree.get(qomPath, name)));
  return {
    qdevId: qomPath === null ? null : qdevIdOf(qomPath),
    driveId: block.device === '' ? null : block.device,
    nodeName: inserted?.['node-name'] ?? null,
    serial: typeof serial === 'string' && serial !== '' ? serial : null,
    sizeBytes: inserted?.image['virtual-size'] ?? 0,
    pciAddress: qomPath === null ? null : await tree.pciAddress(qomPath),
    imagePath,
    imageUri: imagePath === null ? inserted?.image.filename || null : null,
    isEncrypted: inserted?.image.encrypted ?? false,
    format: inserted === undefined ? null : RAW_DRIVERS.has(inserted.drv) ? 'raw' : inserted.drv,
    qomPath,
    readOnly: inserted?.ro ?? true,
    shareable: shareable === true,
    removable: block.removable,
    imageInode: image?.isFile() ? image.ino : null,
  };
}

/** Older QEMUs give the id of a device that has one. */
const absoluteQomPath = (qdev: string): string => (qdev.startsWith('/') ? qdev : `/machine/peripheral/${qdev}`);

const qdevIdOf = (qomPath: string): string | null => /^\/machine\/peripheral\/([^/]+)/.exec(qomPath)?.[1] ?? null;

/** Pseudo file names (`json:{…}`, `nbd://…`) are no paths. */
function imagePathOf(filename: string, cwd: string): string | null {
  if (filename.startsWith('/')) return filename;
  return filename === '' || /^[a-z0-9_.+-]+:/i.test(filename) ? null : resolve(cwd, filename);
}

/** Answers from QEMU's object tree. */
class DeviceTree {
  readonly #qmp: QmpMonitor;
  readonly #pciDevices: readonly PciDeviceInfo[];
  readonly #signal: AbortSignal | undefined;

  constructor(qmp: QmpMonitor, pciDevices: readonly PciDeviceInfo[], signal: AbortSignal | undefined) {
    this.#qmp = qmp;
    this.#pciDevices = pciDevices;
    this.#signal = signal;
  }

  /** A property, or null where the object has none of that name. */
  get(path: string, property: string): Promise<unknown> {
    return this.#qmp.execute('qom-get', { path, property }, { signal: this.#signal }).catch(orNull);
  }

  /** The address of the PCI device that a device is, is part of or is attached to: `0000:00:03.0`. */
  async pciAddress(path: string): Promise<string | null> {
    const at = await this.#location(path);
    if (at === null) return null;
    const hex = (value: number): string => value.toString(16).padStart(2, '0');
    return `0000:${hex(at.bus)}:${hex(at.slot)}.${at.function}`;
  }

  async #location(path: string, depth = 0): Promise<{ bus: number; slot: number; function: number } | null> {
    let device = path;
    for (let level = depth; level < DEEPEST_TREE && device.startsWith('/machine/'); level += 1) {
      const [bus, slot] = await Promise.all([this.get(device, 'parent_bus'), this.#slot(device)]);
      if (typeof bus === 'string' && slot !== null) {
        const number = await this.#busNumber(bus, level + 1);
        return number === null ? null : { bus: number, ...slot };
      }
      // A disk sits on its controller's bus, a virtio back end on a bus inside its PCI device.
      device = dirname(typeof bus === 'string' ? bus : device);
    }
    return null;
  }

  /** `addr` is how every PCI device calls its place; 7.2 has it as a number, later ones may have it as text. */
  async #slot(device: string): Promise<{ slot: number; function: number } | null> {
    const addr = await this.get(device, 'addr');
    if (typeof addr === 'number' && addr >= 0) return { slot: addr >> 3, function: addr & 7 };
    const [, slot, functionNumber = '0'] =
      typeof addr === 'string' ? (/^([0-9a-f]+)(?:\.([0-7]))?$/i.exec(addr) ?? []) : [];
    return slot === undefined ? null : { slot: Number.parseInt(slot, 16), function: Number(functionNumber) };
  }

  async #busNumber(busPath: string, depth: number): Promise<number | null> {
    const bridge = await this.#location(dirname(busPath), depth);
    if (bridge === null) return ROOT_BUS.test(busPath.slice(busPath.lastIndexOf('/') + 1)) ? 0 : null;
    const isBridge = (one: PciDeviceInfo): boolean =>
      one.bus === bridge.bus && one.slot === bridge.slot && one.function === bridge.function;
    return findDevice(this.#pciDevices, isBridge)?.pci_bridge?.bus.secondary ?? null;
  }
}

function findDevice(
  devices: readonly PciDeviceInfo[],
  is: (device: PciDeviceInfo) => boolean,
): PciDeviceInfo | undefined {
  for (const device of devices) {
    const found = is(device) ? device : findDevice(device.pci_bridge?.devices ?? [], is);
    if (found !== undefined) return found;
  }
  return undefined;
}

function orNull(error: unknown): null {
  if (error instanceof QmpCommandError) return null;
  throw error;
}
