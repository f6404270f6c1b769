/** What a guest has to say of itself, and through which port: nothing of it is needed to move the guest. */
import { type ChardevInfo, type QmpClient, QmpCommandError } from '../qmp/index.js';

const QGA_PORT = 'org.qemu.guest_agent.0';

export interface GuestServices {
  /** The unix socket behind qemu-guest-agent's port; null when there is none, or the guest does not listen there. */
  readonly qgaPath: string | null;
  /** The guest's page cache by its own count, as virtio-balloon was last told; null where it was not. */
  readonly pageCacheBytes: number | null;
}

type Monitor = Pick<QmpClient, 'execute'>;

interface Device {
  readonly path: string;
  readonly type: string;
}

/** @throws QmpError when the monitor does not answer */
export async function inspectGuestServices(qmp: Monitor, signal?: AbortSignal): Promise<GuestServices> {
  const devices = await addedDevices(qmp, signal);
  const [qgaPath, pageCacheBytes] = await Promise.all([
    findQga(qmp, devices, signal),
    findPageCache(qmp, devices, signal),
  ]);
  return { qgaPath, pageCacheBytes };
}

async function addedDevices(qmp: Monitor, signal?: AbortSignal): Promise<Device[]> {
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
  return listed.flat();
}

async function findQga(qmp: Monitor, devices: readonly Device[], signal?: AbortSignal): Promise<string | null> {
  for (const { path, type } of devices) {
    if (type !== 'virtserialport' || (await property(qmp, path, 'name', signal)) !== QGA_PORT) continue;
    const label = await property(qmp, path, 'chardev', signal);
    const chardevs = await qmp.execute('query-chardev', {}, { signal });
    const chardev = chardevs.find((one) => one.label === label);
    return chardev?.['frontend-open'] === true ? unixPathOf(chardev) : null;
  }
  return null;
}

/** `unix:/run/vm1.qga,server=on`, or `disconnected:unix:…`. */
function unixPathOf({ filename }: ChardevInfo): string | null {
  return /(?:^|:)unix:(.+?)(?:,server(?:=on)?)?(?: <-> .*)?$/.exec(filename)?.[1] ?? null;
}

/** The statistics are old, or none, unless somebody has told QEMU to poll them; the guest may leave out any of them. */
async function findPageCache(qmp: Monitor, devices: readonly Device[], signal?: AbortSignal): Promise<number | null> {
  const balloon = devices.find(({ type }) => type.startsWith('virtio-balloon'));
  if (balloon === undefined) return null;
  const found = await property(qmp, balloon.path, 'guest-stats', signal);
  const { 'last-update': updated, stats } = (found ?? {}) as { 'last-update'?: unknown; stats?: object };
  const bytes: unknown = { 'stat-disk-caches': null, ...stats }['stat-disk-caches'];
  return typeof updated === 'number' && updated > 0 && Number.isSafeInteger(bytes) ? (bytes as number) : null;
}

async function property(qmp: Monitor, path: string, name: string, signal?: AbortSignal): Promise<unknown> {
  try {
    return await qmp.execute('qom-get', { path, property: name }, { signal });
  } catch (error) {
    if (error instanceof QmpCommandError) return null;
    throw error;
  }
}
