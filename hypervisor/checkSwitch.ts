/**
 * What speaks against letting a guest run on the destination before its memory is there, judged from what is known of
 * it. Only what is certain to fail, or to lose memory: the rest QEMU says itself, before anything is lost.
 */
import { isOn, lastValue, parseArgument, parseOptions } from './direct/commandLine/options.js';
import type { Finding } from './finding.js';
import type { GuestInspection } from './inspection.js';

/** Programs and hardware that read and write the guest's memory by themselves: QEMU's `userfaultfd` does not see them. */
const pastQemu = /^(vfio-|vhost-user-|vhost-vdpa-|vdpa)/;
const backEndsPastQemu = new Set(['vhost-user', 'vhost-vdpa']);
/** All of a host's page arrives at once, and the guest waits for it: above this, for longer than it takes to move it. */
const maxPageBytes = 32 * 1024 * 1024;

/** All reasons against a switch that a teleport does not know. */
export function checkSwitch(inspection: GuestInspection): Finding[] {
  const options = parseOptions(inspection.process.argv.slice(1)).map(({ name, argument }) => ({
    name,
    parts: parseArgument(argument ?? ''),
  }));
  const findings: Finding[] = inspection.deviceTypes
    .filter((type) => pastQemu.test(type))
    .map((type) => device(`a ${type} device`));
  for (const { name, parts } of options) {
    const type = parts.implied ?? lastValue(parts, 'type') ?? lastValue(parts, 'qom-type') ?? '';
    if (name === 'netdev' && backEndsPastQemu.has(type)) findings.push(device(`a ${type} network`));
    if ((name === 'object' || name === 'device') && isOn(lastValue(parts, 'pmem')))
      findings.push(memory(`the memory backend ${lastValue(parts, 'id') ?? type} is persistent memory`));
  }
  for (const { name, pageSizeBytes } of inspection.memory.blocks)
    if (pageSizeBytes > maxPageBytes) findings.push(memory(`${name} is in pages of ${pageSizeBytes / 2 ** 20} MiB`));
  return findings;
}

function device(what: string): Finding {
  return {
    severity: 'refuse',
    code: 'VMMIG_SWITCH_DEVICE',
    message: `the guest has ${what}, which reaches its memory without QEMU: after a switch it would find none there`,
    remedy: 'unplug it first, or use vmmig teleport',
  };
}

function memory(what: string): Finding {
  return {
    severity: 'refuse',
    code: 'VMMIG_SWITCH_MEMORY',
    message: `${what}, which cannot be brought page by page after a switch`,
    remedy: 'use vmmig teleport',
  };
}
