/**
 * What the policy asks of a host: the methods of `vmmig host-service`, their parameters and results. One service
 * process serves one session; it plays the source's part, the destination's, or answers questions.
 * A service whose session ends before the commit point puts everything back by itself.
 */
import type { RequestOptions, RpcClient } from '../hosts/rpc.js';
import type { Method, Params } from './protocol/params.js';
import type { Results } from './protocol/results.js';

export type { AgentRoute } from '../guest-agent/guestAgent.js';
export type { FaultStatistics } from '../relay/destination/postcopy/faults.js';
export type { Ahead } from './memoryAhead.js';
export type { HostedMigration, TeleportStatus } from './protocol/hosted.js';
export {
  type DomainDepartureParams,
  type GuestAddress,
  type Method,
  methodParams,
  type Params,
  type Switching,
  type Tunnel,
} from './protocol/params.js';
export type {
  AgentSearch,
  AskedDestination,
  Check,
  DiskComparison,
  GuestProbe,
  Loaded,
  Pulled,
  Results,
  ScanSummary,
  StartedProcess,
  TakeOver,
} from './protocol/results.js';
export type { DestinationSample, SourceSample } from './protocol/samples.js';
export type { Written } from './writtenMemory.js';

/** Calls a method of a host's service. */
export function call<M extends Method>(
  rpc: RpcClient,
  method: M,
  params: Params<M>,
  options: RequestOptions = {},
): Promise<Results[M]> {
  return rpc.request<Results[M]>(method, params, options);
}
