/** The policy's front door: what the command line, the benchmarks and the demo call. */
export { VmmigError } from './errors.js';
export type { ProgressEvent } from './progress.js';
export { progressSchema } from './progress.js';
export type { Finding, MigrationReport } from './report.js';
export { exitCodeOf, exitCodes, reportSchema } from './report.js';
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
} from './requests.js';
