/** What a domain offers beyond running, as far as libvirt knows: QEMU need not be asked. */
import type { GuestServices } from '../guestServices.js';
import type { DomainAddress } from './domains.js';
import type { DomainDescription } from './domainXml.js';
import { LibvirtError } from './errors.js';
import type { Virsh, VirshLimits } from './virsh.js';

const agentPort = 'org.vmmig.agent.0';
const qgaPort = 'org.qemu.guest_agent.0';

/** @param description - of the live XML */
export async function inspectDomainServices(
  virsh: Virsh,
  address: DomainAddress,
  { channels }: DomainDescription,
  limits: VirshLimits = {},
): Promise<GuestServices> {
  const openPath = (name: string) => {
    const channel = channels.get(name);
    return channel?.isConnected ? channel.path : null;
  };
  return {
    portPath: openPath(agentPort),
    qgaPath: openPath(qgaPort),
    pageCacheBytes: await pageCacheOf(virsh, address, limits),
  };
}

/** `disk_caches 13360`, in KiB: where the balloon is polled (`<stats period='…'/>`), and the guest tells. */
async function pageCacheOf(virsh: Virsh, { domain }: DomainAddress, limits: VirshLimits): Promise<number | null> {
  try {
    const said = await virsh.run(['dommemstat', '--domain', domain], limits);
    const kibibytes = /^disk_caches (\d+)$/m.exec(said)?.[1];
    const isCurrent = Number(/^last_update (\d+)$/m.exec(said)?.[1] ?? 0) > 0;
    return kibibytes !== undefined && isCurrent ? Number(kibibytes) * 1024 : null;
  } catch (thrown) {
    if (thrown instanceof LibvirtError && thrown.code === 'VMMIG_LIBVIRT_COMMAND') return null;
    throw thrown;
  }
}
