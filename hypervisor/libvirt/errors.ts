/** What can go wrong between vmmig and libvirt. */
export type LibvirtErrorCode =
  /** `virsh` is not there, or the daemon does not answer. */
  | 'VMMIG_LIBVIRT_UNREACHABLE'
  /** A command was refused, or failed. */
  | 'VMMIG_LIBVIRT_COMMAND'
  /** The daemon knows no such domain. */
  | 'VMMIG_LIBVIRT_NO_DOMAIN'
  /** libvirt holds the migration to be unsafe, and was not told to do it all the same. */
  | 'VMMIG_LIBVIRT_UNSAFE'
  /** libvirt gave the migration up, on either host. */
  | 'VMMIG_LIBVIRT_MIGRATE';

export class LibvirtError extends Error {
  override readonly name = 'LibvirtError';

  constructor(
    readonly code: LibvirtErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** Of what virsh said: `error: ` lines, in the words of libvirt. */
export function libvirtError(said: string): LibvirtError {
  const message = reasonIn(said);
  return new LibvirtError(codeOf(message), message);
}

/** virsh tells the general first (`failed to get domain 'vm1'`), and then, if it knows, why. */
export function reasonIn(said: string): string {
  const lines = said.split('\n').flatMap((line) => /^error: (.*)$/.exec(line)?.[1] ?? []);
  return lines.length === 0 ? said.trim() || 'virsh failed and did not say why' : lines.join(': ');
}

function codeOf(message: string): LibvirtErrorCode {
  if (/failed to get domain|Domain not found/.test(message)) return 'VMMIG_LIBVIRT_NO_DOMAIN';
  if (/Unsafe migration/.test(message)) return 'VMMIG_LIBVIRT_UNSAFE';
  if (
    /failed to connect|[Dd]isconnected from|Cannot recv data|End of file while reading|client socket is closed|Failed to connect socket/.test(
      message,
    )
  )
    return 'VMMIG_LIBVIRT_UNREACHABLE';
  return 'VMMIG_LIBVIRT_COMMAND';
}
