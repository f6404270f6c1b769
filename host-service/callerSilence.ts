/** How long a caller, who asks every 3 s, may ask for nothing before a service takes it for gone. */

export const callerSilenceMs = 20_000;

/** While the link between the relays is looked for, the caller may be cut off as well; TCP takes as long again to come back. */
export function patientCallerSilenceMs(reconnectTimeoutMs: number): number {
  return callerSilenceMs + 2 * reconnectTimeoutMs;
}
