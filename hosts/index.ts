/** Hosts: the inventory, sessions, and the service that runs on each of them. */
export * from './inventory.js';
export { isThisHost, linkAddress, openHostSession } from './openHostSession.js';
export { type HostService, startHostService } from './remote.js';
export type { HostProcess, HostSession } from './session.js';
