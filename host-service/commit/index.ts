/** The commit point: its state machines, what they come to, and the records on the hosts that they rely on. */

export { decideAtDestination, decideAtSource } from './decided.js';
export { decide, decisionPath, type Role, readDecision } from './decision.js';
export {
  type DestinationAction,
  type DestinationEvent,
  type DestinationState,
  destinationFrom,
  destinationStep,
} from './destination.js';
export {
  type Ledger,
  type LedgerChanges,
  readLedger,
  readLedgers,
  removeLedger,
  updateLedger,
  writeLedger,
} from './ledger.js';
export { LedgerError } from './ledgerError.js';
export type { Step } from './machine.js';
export {
  isEnd,
  type ResolutionAction,
  type ResolutionEnd,
  type ResolutionEvent,
  type ResolutionState,
  recovery,
  resolutionStep,
} from './resolution.js';
export {
  type SourceAction,
  type SourceEvent,
  type SourceState,
  sourceFrom,
  sourceStep,
} from './source.js';
