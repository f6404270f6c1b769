/** The policy's front door: what the command line, the benchmarks and the demo call. */

export { agentScan } from './agentScan.js';
export { cancelMigration } from './cancel.js';
export { VmmigError } from './errors.js';
export { history, showReport } from './history.js';
export { runHostService } from './hostService.js';
export { addHost, checkHost, doctor, type HostList, listHosts, removeHost } from './hostVerbs.js';
export { inspectStream } from './inspectStream.js';
export { inventoryNames } from './inventoryNames.js';
export { listGuests } from './listGuests.js';
export { preflight } from './preflight.js';
export { type ProgressEvent, progressSchema } from './progress.js';
export { type RecoverRequest, recover } from './recover.js';
export {
  exitCodeOf,
  exitCodes,
  type Finding,
  type MigrationMode,
  type MigrationReport,
  type PhaseName,
  reportSchema,
} from './report.js';
export type {
  CancelResult,
  Check,
  DoctorReport,
  GuestList,
  GuestListing,
  Hooks,
  HostCheck,
  MigrateRequest,
  PreflightReport,
  ScanReport,
  SwitchRequest,
} from './requests.js';
export { type MigrationStatus, type StatusReport, type StatusRequest, status } from './status.js';
export { switchOver } from './switch.js';
export { teleport } from './teleport.js';
