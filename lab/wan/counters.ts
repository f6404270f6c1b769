/** What crossed the WAN, counted by its own devices: the truth that reported wire bytes are compared with. */
import { readFile } from 'node:fs/promises';
import { pathInMember } from '../host/members.js';
import { type HostName, networks } from '../settings.js';

export interface WanCounters {
  /** Bytes delivered to hostB, Ethernet, IP and TCP headers included. */
  toHostB: number;
  /** Bytes delivered to hostA. */
  toHostA: number;
}

/** Totals since the lab came up. Large segments count once, so headers of at most 4 % may be missing. */
export async function wanCounters(): Promise<WanCounters> {
  const [toHostA, toHostB] = await Promise.all([delivered('hostA'), delivered('hostB')]);
  return { toHostA, toHostB };
}

async function delivered(host: HostName): Promise<number> {
  const path = `/sys/class/net/${networks[host].device}/statistics/tx_bytes`;
  return Number(await readFile(pathInMember('wan', path), 'utf8'));
}
