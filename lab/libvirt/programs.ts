/** Which libvirt the lab's hosts run: the system's. */
export const libvirtVersions = ['9.0'] as const;

/** `9.0` stands for the system's libvirt. */
export type LibvirtVersion = (typeof libvirtVersions)[number];

/** What the daemons' environment must hold beyond a host's. */
export async function libvirtPrograms(
  _version: LibvirtVersion,
  _signal?: AbortSignal,
): Promise<{ env: Record<string, string> }> {
  return { env: {} };
}
