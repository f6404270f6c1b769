/**
 * Which disk of the guest is which image on the host. The guest's word is a hint like everything else it says: two disks
 * are paired only where the evidence names exactly one pair and nothing speaks against it. A wrong pair would cost
 * time (every digest would mismatch), never a wrong byte.
 */

/** A disk as the guest sees it. */
export interface GuestDisk {
  readonly index: number;
  /** The guest kernel's name, such as `vda`. */
  readonly name: string;
  readonly serial: string | null;
  readonly sizeBytes: number;
  /** `0000:00:03.0`, of the disk or of the controller it is attached to. */
  readonly pciAddress: string | null;
}

/** A disk as QEMU sees it. */
export interface HostDisk {
  readonly qdevId: string | null;
  readonly driveId: string | null;
  readonly nodeName: string | null;
  readonly serial: string | null;
  readonly sizeBytes: number;
  readonly pciAddress: string | null;
  readonly imagePath: string | null;
  /** QEMU's name of the image format, such as `raw`. */
  readonly format: string | null;
}

export type MatchEvidence = 'pciAddress' | 'serial' | 'size';

export interface DiskMatching<G extends GuestDisk = GuestDisk, H extends HostDisk = HostDisk> {
  readonly matched: readonly { readonly guest: G; readonly host: H; readonly by: MatchEvidence }[];
  /** Disks of the guest that stay without an image, and why. */
  readonly unmatched: readonly { readonly guest: G; readonly reason: string }[];
}

/** What a guest sees of a serial number: ATA and virtio-blk carry 20 bytes, SCSI 36. */
const SERIAL_LENGTHS = [20, 36];
/** A guest rounds the size down to its logical sector. */
const LARGEST_SECTOR_BYTES = 4096;

/** The kinds of evidence, the strongest first. */
const rounds: readonly { by: MatchEvidence; holds: (guest: GuestDisk, host: HostDisk) => boolean }[] = [
  { by: 'pciAddress', holds: (guest, host) => guest.pciAddress !== null && sameAddress(guest, host) },
  { by: 'serial', holds: (guest, host) => known(guest.serial) && known(host.serial) && sameSerial(guest, host) },
  { by: 'size', holds: sameSize },
];

/** Pairs the guest's disks with QEMU's: by PCI address, else by serial number, else by a size that only they have. */
export function matchDisks<G extends GuestDisk, H extends HostDisk>(
  guests: readonly G[],
  hosts: readonly H[],
): DiskMatching<G, H> {
  const matched: { guest: G; host: H; by: MatchEvidence }[] = [];
  const reasons = new Map<G, string>();
  const freeGuests = new Set(guests);
  const freeHosts = new Set(hosts);

  for (const { by, holds } of rounds) {
    const candidates = new Map<G, H[]>();
    const timesNamed = new Map<H, number>();
    for (const guest of freeGuests) {
      const named = [...freeHosts].filter((host) => holds(guest, host));
      const consistent = named.filter((host) => contradiction(guest, host) === null);
      if (consistent.length === 0 && named[0] !== undefined && by !== 'size') {
        // Weaker evidence must not overrule stronger evidence that contradicts itself.
        reasons.set(guest, contradiction(guest, named[0])!);
        freeGuests.delete(guest);
        continue;
      }
      candidates.set(guest, consistent);
      for (const host of consistent) timesNamed.set(host, (timesNamed.get(host) ?? 0) + 1);
    }
    for (const [guest, [host, ...others]] of candidates) {
      if (host === undefined) continue;
      if (others.length > 0 || timesNamed.get(host) !== 1) {
        reasons.set(guest, `more than one pair of disks fits ${guest.name} by its ${words[by]}`);
        continue;
      }
      matched.push({ guest, host, by });
      freeGuests.delete(guest);
      freeHosts.delete(host);
    }
  }
  const taken = new Set(matched.map(({ guest }) => guest));
  const unmatched = guests
    .filter((guest) => !taken.has(guest))
    .map((guest) => ({ guest, reason: reasons.get(guest) ?? `QEMU has no disk that fits ${guest.name}` }));
  return { matched: matched.sort((a, b) => guests.indexOf(a.guest) - guests.indexOf(b.guest)), unmatched };
}

const words: Readonly<Record<MatchEvidence, string>> = {
  pciAddress: 'PCI address',
  serial: 'serial number',
  size: 'size',
};

/** Why the two cannot be the same disk, or null. */
function contradiction(guest: GuestDisk, host: HostDisk): string | null {
  const other = `QEMU's ${host.qdevId ?? host.driveId ?? host.nodeName ?? 'disk'}`;
  if (guest.pciAddress !== null && host.pciAddress !== null && !sameAddress(guest, host)) {
    return `${guest.name} is at PCI address ${guest.pciAddress}, ${other} at ${host.pciAddress}`;
  }
  if (known(guest.serial) && known(host.serial) && !sameSerial(guest, host)) {
    return `${guest.name} has the serial number ${guest.serial?.trim()}, ${other} has ${host.serial?.trim()}`;
  }
  if (!sameSize(guest, host)) return `${guest.name} has ${guest.sizeBytes} bytes, ${other} has ${host.sizeBytes}`;
  return null;
}

function sameAddress(guest: GuestDisk, host: HostDisk): boolean {
  return guest.pciAddress?.toLowerCase() === host.pciAddress?.toLowerCase();
}

const known = (serial: string | null): boolean => serial !== null && serial.trim() !== '';

function sameSerial(guest: GuestDisk, host: HostDisk): boolean {
  const seen = guest.serial?.trim() ?? '';
  const given = host.serial?.trim() ?? '';
  return seen === given || SERIAL_LENGTHS.some((length) => seen === given.slice(0, length).trim());
}

function sameSize(guest: GuestDisk, host: HostDisk): boolean {
  return guest.sizeBytes <= host.sizeBytes && host.sizeBytes - guest.sizeBytes < LARGEST_SECTOR_BYTES;
}
