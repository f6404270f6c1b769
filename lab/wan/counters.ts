/** What crossed the WAN, counted by the WAN itself: the truth that reported wire bytes are compared with. */
import { readFile } from 'node:fs/promises';
import { pathInMember } from '../host/members.js';
import { type HostName, networks } from '../settings.js';
import { linkCounters } from './wan.js';

export interface WanCounters {
  /** Bytes delivered to hostB, with Ethernet, IP and TCP headers and retransmissions. */
  toHostB: number;
  /** Bytes delivered to hostA. */
  toHostA: number;
}

/** Totals since the lab came up. */
export async function wanCounters(): Promise<WanCounters> {
  try {
    const counters = await readFile(pathInMember('wan', linkCounters));
    return { toHostB: Number(counters.readBigUInt64LE(0)), toHostA: Number(counters.readBigUInt64LE(8)) };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  // A WAN made of netem, where the devices carry nothing but real frames.
  const [toHostA, toHostB] = await Promise.all([sent('hostA'), sent('hostB')]);
  return { toHostA, toHostB };
}

async function sent(host: HostName): Promise<number> {
  const path = `/sys/class/net/${networks[host].device}/statistics/tx_bytes`;
  return Number(await readFile(pathInMember('wan', path), 'utf8'));
}
