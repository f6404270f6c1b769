/** The lab: two hosts on this machine with a WAN between them, and small guests that boot in seconds. */
export { LabError, type LabErrorCode } from './errors.js';
export { type GuestDevices, type GuestDisk, type GuestPaths, guestArguments, guestPaths } from './guest/arguments.js';
export { createDataDisk, type DataDiskOptions } from './guest/dataDisk.js';
export { type RunningGuest, startTinyGuest, type TinyGuestLaunch, waitForBoot } from './guest/launch.js';
export { GuestShell, type ShellResult } from './guest/shell.js';
export { buildTinyGuest, type TinyGuestImage, type TinyGuestOptions } from './guest/tinyGuest.js';
export {
  guestPathsFromOutside,
  type LabGuestHandle,
  type LabGuestOptions,
  labGuestShell,
  labGuestStart,
} from './guests.js';
export { hostEnvironment, labExec, pathInMember } from './host/members.js';
export { type LabStatus, labDown, labStatus, labUp, setWan } from './lab.js';
export { domainPid, virsh } from './libvirt/domains.js';
export type { DomainOptions } from './libvirt/domainXml.js';
export { type LibvirtVersion, libvirtVersions } from './libvirt/version.js';
export { type LabQemu, labQemus, type QemuVersion, qemuBinary } from './qemu.js';
export {
  defaultSettings,
  guestDirectory,
  type HostName,
  hostNames,
  type LabSettings,
  labDirectory,
  labPaths,
  networks,
  type WanSettings,
} from './settings.js';
export type { LabGuest, LabState } from './state.js';
export { type WanCounters, wanCounters } from './wan/counters.js';
export { cutWan, healWan } from './wan/wan.js';
