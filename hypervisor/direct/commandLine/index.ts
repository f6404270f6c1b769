export {
  type CommandLineOverrides,
  type CommandLinePlan,
  deriveCommandLine,
  type SourceCommandLine,
} from './derive.js';
export type { Listener } from './listeners.js';
export type { RequiredPath } from './requiredPaths.js';
