/** Guests that libvirt manages: through `virsh`, and never past it. */
export { checkDomain, checkDomainDestination, type DomainPlan } from './checkDomain.js';
export { type DomainInspection, inspectForLibvirt, mediaIn } from './domainInspection.js';
export { inspectDomainServices } from './domainServices.js';
export {
  type DomainAddress,
  type DomainState,
  domainId,
  domainJob,
  domainState,
  domainXml,
  isActive,
  listDomains,
  qemuConfinement,
} from './domains.js';
export { type DomainChannel, type DomainDescription, type DomainDisk, parseDomain } from './domainXml.js';
export { LibvirtError, type LibvirtErrorCode } from './errors.js';
export { inspectDomain } from './inspectDomain.js';
export { type DomainMigration, type MigrateDomainOptions, migrateDomain } from './migrateDomain.js';
export { type LibvirtMonitorClient, openMonitor } from './monitor.js';
export { type Owner, ownerNamed, qemuOwner, qemuStateDirectory } from './qemuUser.js';
export {
  encodeCall,
  encodeReply,
  finishReply,
  pong,
  type RemoteMessage,
  RemoteMessages,
  RemoteProtocolError,
  remoteProcedure,
  withPostcopy,
} from './remoteProtocol.js';
export { Virsh, type VirshLimits } from './virsh.js';
