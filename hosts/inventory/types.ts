/** What the inventory file says, checked and with its defaults filled in. The file's own form is in `schema.ts`. */

export interface PortRange {
  first: number;
  last: number;
}

export interface InventoryHost {
  name: string;
  /** SSH destination: `user@host:port`, `ssh://…`, or a name that ssh_config knows. */
  ssh: string;
  /** ssh_config to use instead of ~/.ssh/config and /etc/ssh/ssh_config. */
  sshConfig?: string;
  /** Private key that is offered first. */
  identityFile?: string;
  /** known_hosts to use instead of what ssh_config names. */
  knownHosts?: string;
  connectTimeoutMs?: number;
  /** Where the other host's relay connects to. Default: the host name that SSH connects to. */
  address?: string;
  /** TCP ports the relay may listen on. Default: any. */
  linkPorts?: PortRange;
  /** The most that migrations from or to this host may send. Default: no limit. */
  bandwidthBitsPerSecond?: number;
  /** Command line of vmmig on the host. */
  vmmig: string[];
  stateDir: string;
  runDir: string;
  /** How the libvirt of another host reaches this one's. Default: through vmmig. */
  libvirtUri?: string;
  /** QEMU to start on the host. Default: the same path as the source's. */
  qemu?: string;
  /** What `hostname` prints on the host: tells whether it is the one vmmig runs on. */
  hostname: string;
}

export interface InventoryDisk {
  /** Image or block device on every host that `paths` does not name. */
  path: string;
  /** By host name. */
  paths: Readonly<Record<string, string>>;
  /** Of an image that QEMU encrypts: a file with its key, on every host that reads it. */
  keyFile?: string | undefined;
}

/** Changes to the source's QEMU command line for the destination, in this order: `argv`, `replace`, `options`. */
export interface GuestDestination {
  /** The whole command line, instead of the one derived from the source's process. */
  argv?: string[];
  /** Strings to replace wherever they occur in an argument. */
  replace: Readonly<Record<string, string>>;
  /** Arguments to add at the end. */
  options: string[];
}

export interface InventoryGuest {
  name: string;
  /** The host it is expected to run on: a name in `hosts`. */
  host: string;
  /** QMP socket of the running QEMU. */
  qmp: string;
  /** Socket of the guest agent's virtio-serial port. */
  agent?: string;
  /** By block node name or drive id. */
  disks: Readonly<Record<string, InventoryDisk>>;
  destination: GuestDestination;
}

export interface Inventory {
  /** The file it was read from, or would be. */
  path: string;
  /** False when the default file does not exist; the inventory is empty then. */
  exists: boolean;
  hosts: ReadonlyMap<string, InventoryHost>;
  guests: ReadonlyMap<string, InventoryGuest>;
}
