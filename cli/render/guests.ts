/** Guests as a table. */
import type { GuestListing } from '../../migrate/index.js';
import { clean, memory } from './format.js';
import type { Page } from './style.js';
import { table } from './table.js';

export function guestLines(guests: readonly GuestListing[], page: Page): string[] {
  const { style } = page;
  const rows = guests.map((guest) => [
    style.bold(clean(guest.vm)),
    guest.host === null ? style.dim('?') : clean(guest.host),
    guest.state === 'running' ? style.green(guest.state) : clean(guest.state),
    guest.memoryBytes === null ? '' : memory(guest.memoryBytes),
    guest.agent === null ? '' : guest.agent ? (guest.agentVia === 'qemu-ga' ? 'qemu-ga' : 'yes') : style.yellow('no'),
    guest.migration === null ? '' : style.cyan(clean(guest.migration)),
    guest.problem === null ? '' : style.yellow(clean(guest.problem)),
  ]);
  const columns = [
    { title: 'guest' },
    { title: 'host' },
    { title: 'state' },
    { title: 'memory', align: 'right' },
    { title: 'agent' },
    { title: 'migration' },
    { title: 'problem' },
  ] as const;
  return table(columns, rows, page);
}
