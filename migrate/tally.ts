/** Adds up what the report says of bytes and pages, from both relays and both sessions. */
import type { Loaded, SourceSample } from '../host-service/protocol.js';
import type { MigrationReport } from './report.js';
import type { Side } from './sides.js';

type Totals = Pick<MigrationReport, 'capture' | 'bytes' | 'pages' | 'link' | 'opaqueSections'>;

type Sent = Pick<SourceSample, 'counters' | 'bytesOnWire' | 'connections' | 'rttMs' | 'reconnects' | 'opaqueSections'> &
  Partial<Pick<SourceSample, 'capture'>>;

/** @param last - the source's last sample; null when QEMU's migration was never started */
export function tally(last: Sent | null, loaded: Loaded | null, sides: readonly Side[]): Totals {
  const control = sides.reduce((sum, side) => sum + side.bytesOnWire(), 0);
  const pages = last?.counters.pages;
  const mismatched = pages?.mismatched ?? 0;
  return {
    capture: last?.capture ?? null,
    bytes: {
      wire: (last?.bytesOnWire ?? 0) + control,
      stream: last?.counters.bytes.stream ?? 0,
      restored: loaded?.counters.bytes.restored ?? 0,
    },
    pages: {
      seen: pages?.seen ?? 0,
      zero: pages?.zero ?? 0,
      teleported: (pages?.teleported ?? 0) - mismatched,
      sent: pages?.sent ?? 0,
      mismatched,
      faulted: pages?.faulted ?? 0,
    },
    link: {
      connections: last?.connections ?? 0,
      rttMs: Math.round((last?.rttMs ?? 0) * 10) / 10,
      reconnects: last?.reconnects ?? 0,
    },
    opaqueSections: last?.opaqueSections ?? [],
  };
}
