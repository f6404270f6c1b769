/**
 * The closed list of error codes. Scripts match on the codes, people are shown the words, and docs/errors.md is
 * `errorDocument()`. A test finds a code that is used anywhere and missing here.
 */
import type { ErrorArea, ErrorHelp } from './errorCodes/area.js';
import { hosts, usage } from './errorCodes/asking.js';
import { findings } from './errorCodes/findings.js';
import { agent, disk, qemu } from './errorCodes/guest.js';
import { libvirt } from './errorCodes/libvirt.js';
import { lab, migration, relay } from './errorCodes/moving.js';
import { switching } from './errorCodes/switching.js';

export type { ErrorHelp } from './errorCodes/area.js';

const areas = [usage, hosts, findings, qemu, libvirt, agent, disk, relay, migration, switching, lab] as const;

type CodesOf<Area> = Area extends { readonly codes: infer Codes } ? keyof Codes : never;
export type ErrorCode = CodesOf<(typeof areas)[number]>;

export const errorCodes = Object.fromEntries(areas.flatMap(helpOf)) as Readonly<Record<ErrorCode, ErrorHelp>>;

/** The words for a code; null for one that a newer vmmig on the other host has and this one does not. */
export function explainError(code: string): ErrorHelp | null {
  return Object.hasOwn(errorCodes, code) ? errorCodes[code as ErrorCode] : null;
}

/** The list as docs/errors.md. */
export function errorDocument(): string {
  const sections = areas.map((area) => [`## ${area.title}`, ...helpOf(area).map(codeText)].join('\n\n'));
  return `${[introduction, ...sections].join('\n\n')}\n`;
}

const introduction = `# Errors

<!-- Written from migrate/errorCodes.ts by \`npx tsx cli/errorDocument.ts > docs/errors.md\`; a test compares the two. -->

Every error of vmmig has one of the codes below. It is in the message, in \`error.code\` of the report, and stays the same
from version to version, so that scripts can rely on it. The exit code says where the guest is (see [cli.md](cli.md)),
and so does \`vmLocation\` in the report; where this page says something more general, the report is right.`;

function helpOf(area: ErrorArea): [string, ErrorHelp][] {
  return Object.entries(area.codes).map(([code, help]) => [code, { whereIsTheGuest: area.whereIsTheGuest, ...help }]);
}

function codeText([code, help]: [string, ErrorHelp]): string {
  return [
    `### ${code}`,
    help.summary,
    `* **Where is the guest?** ${help.whereIsTheGuest}\n* **What to do:** ${help.nextStep}`,
  ].join('\n\n');
}
