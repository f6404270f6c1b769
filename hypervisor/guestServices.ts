/** What a guest offers beyond running: nothing of it is needed to move the guest. */
import { type AddedDevice, addedDevices, deviceProperty, findPort } from './devices.js';
import type { QmpMonitor } from './qmpMonitor.js';

const AGENT_PORT = 'org.vmmig.agent.0';
const QGA_PORT = 'org.qemu.guest_agent.0';

export interface GuestServices {
  /** The unix socket behind the port of vmmig's agent; null when there is none, or nobody in the guest listens there. */
  readonly portPath: string | null;
  /** Likewise behind qemu-guest-agent's port. */
  readonly qgaPath: string | null;
  /** The guest's page cache by its own count, as virtio-balloon was last told; null where it was not. */
  readonly pageCacheBytes: number | null;
}

/** @throws QmpError when the monitor does not answer */
export async function inspectGuestServices(qmp: QmpMonitor, signal?: AbortSignal): Promise<GuestServices> {
  const devices = await addedDevices(qmp, signal);
  const openPath = async (name: string) => {
    const port = await findPort(qmp, devices, name, signal);
    return port?.isOpen === true ? port.path : null;
  };
  const [portPath, qgaPath, pageCacheBytes] = await Promise.all([
    openPath(AGENT_PORT),
    openPath(QGA_PORT),
    findPageCache(qmp, devices, signal),
  ]);
  return { portPath, qgaPath, pageCacheBytes };
}

/** Statistics that nobody has told QEMU to poll are none, or of the guest's boot; the guest may leave out any of them. */
async function findPageCache(
  qmp: QmpMonitor,
  devices: readonly AddedDevice[],
  signal?: AbortSignal,
): Promise<number | null> {
  const balloon = devices.find(({ type }) => type.startsWith('virtio-balloon'));
  if (balloon === undefined) return null;
  if (!Number(await deviceProperty(qmp, balloon.path, 'guest-stats-polling-interval', signal))) return null;
  const found = (await deviceProperty(qmp, balloon.path, 'guest-stats', signal)) as GuestStatistics | null;
  const bytes = found?.stats?.['stat-disk-caches'];
  return Number(found?.['last-update']) > 0 && Number.isSafeInteger(bytes) ? bytes! : null;
}

/** Source: QEMU, docs/interop/virtio-balloon-stats.rst. 2^64 - 1 is what the guest has not told. */
interface GuestStatistics {
  readonly 'last-update'?: number;
  readonly stats?: { readonly 'stat-disk-caches'?: number };
}
