/** The devices that were added to a machine, and what is behind its virtio-serial ports. */
import { QmpCommandError } from '../qmp/index.js';
import type { QmpMonitor } from './qmpMonitor.js';

export interface AddedDevice {
  readonly path: string;
  /** QOM type, such as `virtserialport`. */
  readonly type: string;
}

export interface Port {
  /** The unix socket on the host; null where it is something else. */
  readonly path: string | null;
  /** Whether a program in the guest has the port open. */
  readonly isOpen: boolean;
}

/** Devices of `-device` and `device_add`, with an id or without. */
export async function addedDevices(qmp: QmpMonitor, signal?: AbortSignal): Promise<AddedDevice[]> {
  const folders = ['/machine/peripheral', '/machine/peripheral-anon'];
  const listed = await Promise.all(
    folders.map(async (path) => {
      const entries = await qmp.execute('qom-list', { path }, { signal });
      return entries.map(({ name, type }) => ({
        path: `${path}/${name}`,
        type: /^child<(.+)>$/.exec(type)?.[1] ?? '',
      }));
    }),
  );
  return listed.flat().filter(({ type }) => type !== '');
}

/** The virtio-serial port of that name, or null when the guest has none. */
export async function findPort(
  qmp: QmpMonitor,
  devices: readonly AddedDevice[],
  name: string,
  signal?: AbortSignal,
): Promise<Port | null> {
  for (const { path, type } of devices) {
    if (type !== 'virtserialport' || (await deviceProperty(qmp, path, 'name', signal)) !== name) continue;
    const label = await deviceProperty(qmp, path, 'chardev', signal);
    const chardevs = await qmp.execute('query-chardev', {}, { signal });
    const chardev = chardevs.find((one) => one.label === label);
    return { path: unixPathOf(chardev?.filename ?? ''), isOpen: chardev?.['frontend-open'] === true };
  }
  return null;
}

/** `unix:/run/vm1.agent,server=on`, or `disconnected:unix:…`. */
function unixPathOf(filename: string): string | null {
  return /(?:^|:)unix:(.+?)(?:,server(?:=on)?)?(?: <-> .*)?$/.exec(filename)?.[1] ?? null;
}

/** Null when the device has no such property. */
export async function deviceProperty(
  qmp: QmpMonitor,
  path: string,
  property: string,
  signal?: AbortSignal,
): Promise<unknown> {
  try {
    return await qmp.execute('qom-get', { path, property }, { signal });
  } catch (error) {
    if (error instanceof QmpCommandError) return null;
    throw error;
  }
}
