/** How the lab is: its link, its hosts, its guests, and how to use it. */
import type { LabStatus } from '../../lab/index.js';
import { clean, duration, rate } from './format.js';
import type { Page } from './style.js';
import { wrap } from './table.js';

export function labStatusLines(status: LabStatus, inventoryPath: string, { style, textWidth }: Page): string[] {
  const { symbols } = style;
  if (status.condition === 'down') return ['The lab is down: "vmmig lab up" raises it.'];
  if (status.condition === 'broken' || status.state === null) {
    return wrap(
      `${style.red(symbols.failed)} The lab in ${status.directory} is broken: "vmmig lab up" repairs it.`,
      textWidth,
    );
  }
  const { rttMs, rateBps, qemu, libvirt, guests } = status.state;
  const link = `${rateBps === null ? 'unlimited' : rate(rateBps)}, round trip ${duration(rttMs)}`;
  const names = Object.entries(guests).map(([name, guest]) => `${clean(name)} (started on ${guest.host})`);
  return [
    `${style.green(symbols.done)} The lab is up: hostA and hostB, ${link}, QEMU ${qemu}${libvirt === null ? '' : `, libvirt ${libvirt}`}`,
    ...wrap(`Guests: ${names.length === 0 ? 'none' : names.join(', ')}`, textWidth, 2),
    `  To use it: export VMMIG_INVENTORY=${inventoryPath}`,
  ];
}
