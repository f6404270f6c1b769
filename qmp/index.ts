/** The QMP client: talking to QEMU's monitor. */
export {
  QmpClient,
  type QmpConnectOptions,
  type QmpEventsOptions,
  type QmpExecuteOptions,
} from './client.js';
export {
  QmpCommandError,
  QmpConnectError,
  QmpError,
  type QmpErrorCode,
  QmpGreetingError,
  QmpInterruptedError,
  type QmpInterruption,
  QmpOverflowError,
  QmpProtocolError,
} from './errors.js';
export type { QmpEventFilter } from './eventHub.js';
export type { QmpLimits } from './interruption.js';
export type { QmpGreeting, QmpVersion } from './messages.js';
export type { QmpSchema } from './schema.js';
export { nobodyListens, openTransport, type QmpTransportTarget } from './transport.js';
export type * from './types/block.js';
export type { ArgumentsOf, QmpCommands, ReturnOf } from './types/commands.js';
export type { QmpEvent, QmpEvents } from './types/events.js';
export type * from './types/machine.js';
export type * from './types/migration.js';
export type { SchemaInfo } from './types/schema.js';
