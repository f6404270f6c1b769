/** The commit point: its state machines, what they come to, and the records on the hosts that they rely on. */

export { decideAtDestination, decideAtSource } from './decided.js';
export { type Decision, decide, decisionPath, type Role, readDecision } from './decision.js';
export {
  type DestinationAction,
  type DestinationEvent,
  type DestinationFacts,
  type DestinationState,
  destinationFrom,
  destinationStep,
  destinationTable,
} from './destination.js';
export {
  type Ledger,
  type LedgerChanges,
  type LedgerListing,
  type LedgerRole,
  ledgerPhases,
  readLedger,
  readLedgers,
  removeLedger,
  updateLedger,
  writeLedger,
} from './ledger.js';
export { LedgerError, type LedgerErrorCode } from './ledgerError.js';
export type { Step } from './machine.js';
export {
  isEnd,
  type ResolutionAction,
  type ResolutionEnd,
  type ResolutionEvent,
  type ResolutionState,
  recovery,
  resolutionStep,
  resolutionTable,
} from './resolution.js';
export {
  type SourceAction,
  type SourceEvent,
  type SourceFacts,
  type SourceState,
  sourceFrom,
  sourceStep,
  sourceTable,
} from './source.js';
