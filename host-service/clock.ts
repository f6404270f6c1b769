import type { QmpEvent } from '../qmp/index.js';

/** When QEMU sent an event, in milliseconds since the epoch by the host's clock. */
export function eventTimeMs(event: QmpEvent): number {
  const { seconds, microseconds } = event.timestamp;
  return seconds * 1000 + microseconds / 1000;
}
