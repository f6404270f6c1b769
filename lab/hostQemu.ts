/** Which QEMU a host of the lab has. */
import type { LabQemu, QemuVersion } from './qemu.js';
import type { HostName } from './settings.js';

export function qemuVersionOn(host: HostName, qemu: LabQemu): QemuVersion {
  if (qemu !== 'mixed') return qemu;
  return host === 'hostA' ? '7.2' : '10.0';
}

/** The newest machine that all of the hosts have, under the name that each of them knows it by. */
export function machineFor(qemu: LabQemu): string {
  return qemu === 'mixed' ? 'pc-q35-7.2' : 'q35';
}

/** Whether none of them is one that needs guests of odd sizes, see guest/arguments.ts. */
export function takesRoundMemory(qemu: LabQemu): boolean {
  return qemu === '10.0';
}
