/**
 * Finding, inspecting, starting and stopping guests. What is here speaks QMP and works however QEMU was started;
 * `direct/` is about QEMUs that vmmig starts itself, `libvirt/` about those that libvirt does.
 */

export { checkSource } from './checkSource.js';
export { checkSwitch } from './checkSwitch.js';
export { type CpuState, cpuStates } from './cpuState.js';
export { acceptMigration, type DestinationGuest, letRun, waitUntilLoaded } from './destination.js';
export * from './direct/commandLine/index.js';
export {
  checkDestination,
  checkSourceDirectory,
  type DestinationDisk,
  type DestinationPlan,
} from './direct/preflight/index.js';
export { RecoveryGuard, type RecoveryPaths } from './direct/recoveryGuard.js';
export { type StartDestinationOptions, startDestination } from './direct/startDestination.js';
export { HypervisorError, type HypervisorErrorCode } from './errors.js';
export { processesMapping } from './fileMappings.js';
export type { Finding, FindingCode } from './finding.js';
export { findGpaRange, type GpaRange } from './gpaMap.js';
export { type GuestServices, inspectGuestServices } from './guestServices.js';
export { type InspectOptions, inspectGuest } from './inspect.js';
export type { BlockDevice, GuestInspection, MemoryBackend, ProcessId, ProcessInspection } from './inspection.js';
export * from './libvirt/index.js';
export { loadWorkingSet, type VirtioQueue, virtioQueues } from './loadWorkingSet.js';
export { isInFiles, type MemoryBackendFile, memoryBackends } from './memoryBackends.js';
export { lookAt, type RunContents, runsToLookAt, type SampledRun } from './memorySamples.js';
export { applyMigrationSettings, type MigrationSettings, type PreviousSettings } from './migrationSettings.js';
export { type MigrationState, migrationState, waitForMigrationEnd } from './migrationStatus.js';
export { hostAddress, PhysicalMemory } from './physicalMemory.js';
export { isRunning, processId, watchForEnd } from './process.js';
export type { QmpMonitor } from './qmpMonitor.js';
export { parseRamBlocks, type RamBlockInfo } from './ramBlocks.js';
export type { RamStretch } from './ramStretch.js';
export { type MappedStretch, RecentUse } from './recentUse.js';
export { type RecoveryOptions, untilRecoverable } from './recovery.js';
export { cancelMigration, endProcess, quitSource, resumeAfterFailure, startMigration } from './source.js';
export { touchedPages } from './touchedMemory.js';
