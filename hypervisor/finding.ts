/** Something a check found: a reason not to migrate, or one to think twice. */
export interface Finding {
  readonly severity: 'refuse' | 'warn';
  readonly code: FindingCode;
  /** What is wrong, in one sentence. */
  readonly message: string;
  /** What to do about it. */
  readonly remedy: string;
}

export type FindingCode =
  /** The source's command line cannot be used on another host as it is. */
  | 'VMMIG_COMMAND_LINE'
  /** vmmig cannot put its own files where they belong on the source. */
  | 'VMMIG_SOURCE_DIRECTORY'
  /** The guest was not running. */
  | 'VMMIG_GUEST_NOT_RUNNING'
  /** QEMU itself refuses to migrate the guest. */
  | 'VMMIG_MIGRATION_BLOCKED'
  /** Another migration of the guest is under way. */
  | 'VMMIG_MIGRATION_RUNNING'
  /** A device that is bound to its host. */
  | 'VMMIG_HOST_DEVICE'
  /** A device that reaches the guest's memory without QEMU. */
  | 'VMMIG_SWITCH_DEVICE'
  /** Memory that cannot be brought page by page. */
  | 'VMMIG_SWITCH_MEMORY'
  /** QEMU may not use what brings memory on demand. */
  | 'VMMIG_USERFAULTFD'
  /** QEMU would lose writes of the guest. */
  | 'VMMIG_DIRTY_LOG'
  /** A disk image that the destination cannot have. */
  | 'VMMIG_DISK_IMAGE'
  /** What the destination has under the image's name is another disk. */
  | 'VMMIG_DISK_DIFFERENT'
  /** Somebody on the destination writes to the image. */
  | 'VMMIG_DISK_IN_USE'
  /** libvirt is doing something else with the domain. */
  | 'VMMIG_DOMAIN_BUSY'
  /** libvirt does not migrate a domain with snapshots. */
  | 'VMMIG_DOMAIN_SNAPSHOT'
  /** The destination's libvirt cannot take the domain in. */
  | 'VMMIG_DOMAIN_DESTINATION'
  /** A mode of migration that there is not for domains. */
  /** libvirt would call the migration unsafe. */
  | 'VMMIG_LIBVIRT_UNSAFE'
  /** The guest's CPU may not be available. */
  | 'VMMIG_CPU_MODEL'
  /** No QEMU, or not one that runs this guest. */
  | 'VMMIG_DESTINATION_QEMU'
  /** Something the command line names is missing. */
  | 'VMMIG_DESTINATION_PATH'
  /** A socket or port that is in use. */
  | 'VMMIG_DESTINATION_ADDRESS'
  /** No memory for the guest. */
  | 'VMMIG_DESTINATION_MEMORY'
  /** No space for vmmig's own files. */
  | 'VMMIG_DESTINATION_SPACE';
