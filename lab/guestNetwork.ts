/**
 * The guests' own network: one Ethernet across both hosts, so that a guest keeps its address when it moves, and clients
 * outside the hosts, who find it where it is by what it announces there.
 *
 *     hostA: guests ── lan0   to-guests-a ── guests ── to-guests-b   lan0 ── guests: hostB
 *                                     wan (10.77.3.254)
 */
import { createHash } from 'node:crypto';
import { chmod, writeFile } from 'node:fs/promises';
import { execa } from 'execa';
import { cancel, labExec, memberPid } from './host/members.js';
import { guestNetwork, hostNames, labPaths } from './settings.js';

const { bridge, clientAddress, bits } = guestNetwork;
const device = { hostA: 'to-guests-a', hostB: 'to-guests-b' };

/** All three members must run and have no such network yet. */
export async function raiseGuestNetwork(signal?: AbortSignal): Promise<void> {
  const addBridge = `ip link add ${bridge} type bridge stp_state 0 forward_delay 0; ip link set ${bridge} up`;
  const join = (name: string) => `ip link set ${name} master ${bridge}; ip link set ${name} up`;
  const addClient = `ip address add ${clientAddress}/${bits} dev ${bridge}`;
  await labExec('wan', ['sh', '-euc', `${addBridge}; ${addClient}`], cancel(signal));
  for (const host of hostNames) {
    const peer = ['type', 'veth', 'peer', 'name', device[host], 'netns', String(memberPid('wan'))];
    await execa('ip', ['link', 'add', 'lan0', 'netns', String(memberPid(host)), ...peer], cancel(signal));
    await labExec('wan', ['sh', '-euc', join(device[host])], cancel(signal));
    await labExec(host, ['sh', '-euc', `${addBridge}; ${join('lan0')}`], cancel(signal));
  }
  await writeFile(labPaths.joinBridge(), `#!/bin/sh\nset -e\n${join('"$1"')}\n`);
  await chmod(labPaths.joinBridge(), 0o755);
}

/** The hardware address of a guest, and its address: the same for a name each time. */
export function guestAddress(name: string): { mac: string; ip: string } {
  const [a = 0, b = 0, c = 0] = createHash('sha256').update(name).digest();
  const hex = [a, b, c].map((byte) => byte.toString(16).padStart(2, '0'));
  return { mac: `52:54:00:${hex.join(':')}`, ip: `10.77.3.${1 + (a % 250)}` };
}
