/** Opens sessions to hosts, and says which of them needs no network. */
import { hostname } from 'node:os';
import type { InventoryHost } from './inventory/types.js';
import { LocalSession } from './localSession.js';
import type { HostSession } from './session.js';
import { openSshHostSession } from './ssh/sshHostSession.js';
import { resolveTarget } from './ssh/target.js';

export interface OpenOptions {
  signal?: AbortSignal;
  /** For the whole of connecting and logging in. Default: the inventory's, ssh_config's ConnectTimeout, or 15 s. */
  timeoutMs?: number;
  /** How long an established session may be silent. Default 15 s; ssh_config's ServerAlive… counts where that is stricter. */
  silenceLimitMs?: number;
}

/**
 * Opens a session to a host: locally when the host is this one (its `hostname` is ours, or its name is `localhost`),
 * else over SSH.
 * @throws HostError with a VMMIG_SSH_… code; the signal's reason when aborted.
 */
export async function openHostSession(host: InventoryHost, options: OpenOptions = {}): Promise<HostSession> {
  options.signal?.throwIfAborted();
  if (isThisHost(host)) return new LocalSession(host.name);
  return await openSshHostSession(host, options);
}

/** Whether the inventory's host is the one this process runs on. */
export function isThisHost(host: InventoryHost): boolean {
  return host.name === 'localhost' || host.hostname === hostname();
}

/**
 * Where another host connects to reach this one: the inventory's `address`, else the host name that SSH connects to.
 * @throws HostError VMMIG_SSH_CONFIG when ssh_config cannot be used.
 */
export async function linkAddress(host: InventoryHost): Promise<string> {
  return host.address ?? (await resolveTarget(host)).hostName;
}
