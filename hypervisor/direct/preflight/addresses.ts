/** Whether the sockets and ports that the guest's QEMU will listen on are free. */
import { readFile } from 'node:fs/promises';
import type { Finding } from '../../finding.js';
import type { DestinationPlan } from './plan.js';

/** Columns of /proc/net/unix and the flag of a listening socket (Linux, net/unix/af_unix.c and include/linux/net.h). */
const UNIX_FLAGS = 3;
const UNIX_PATH = 7;
const SO_ACCEPTCON = 1 << 16;
/** Columns of /proc/net/tcp and the state of a listening socket (Linux, net/ipv4/tcp_ipv4.c and include/net/tcp_states.h). */
const TCP_LOCAL_ADDRESS = 1;
const TCP_STATE = 3;
const TCP_LISTEN = '0A';

export async function checkAddresses({ commandLine, qmpPath }: DestinationPlan): Promise<Finding[]> {
  const [paths, ports] = await Promise.all([listeningPaths(), listeningPorts()]);
  const findings = commandLine.listeners.flatMap((listener): Finding[] => {
    const taken = listener.kind === 'unix' ? paths.has(listener.path) : ports.has(listener.port);
    if (!taken) return [];
    const address = listener.kind === 'unix' ? listener.path : `port ${listener.port}`;
    const remedy = 'end what listens there, or replace the address for this host in the inventory';
    return [refuse(`${listener.option}: another process listens on ${address}`, remedy)];
  });
  const hasMonitor = commandLine.listeners.some((listener) => listener.kind === 'unix' && listener.path === qmpPath);
  if (!hasMonitor) {
    findings.push(
      refuse(`the command line opens no monitor at ${qmpPath}`, "correct the guest's QMP socket in the inventory"),
    );
  }
  return findings;
}

/** Unix sockets of this network namespace that a process listens on. */
async function listeningPaths(): Promise<ReadonlySet<string>> {
  const rows = await table('/proc/net/unix');
  const listening = rows.filter((row) => (Number.parseInt(row[UNIX_FLAGS] ?? '0', 16) & SO_ACCEPTCON) !== 0);
  return new Set(listening.map((row) => row.slice(UNIX_PATH).join(' ')));
}

async function listeningPorts(): Promise<ReadonlySet<number>> {
  const rows = (await Promise.all([table('/proc/net/tcp'), table('/proc/net/tcp6')])).flat();
  const listening = rows.filter((row) => row[TCP_STATE] === TCP_LISTEN);
  return new Set(listening.map((row) => Number.parseInt(row[TCP_LOCAL_ADDRESS]?.split(':')[1] ?? '0', 16)));
}

async function table(path: string): Promise<string[][]> {
  const text = await readFile(path, 'utf8').catch(() => '');
  return text
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/));
}

function refuse(message: string, remedy: string): Finding {
  return { severity: 'refuse', code: 'VMMIG_DESTINATION_ADDRESS', message, remedy };
}
