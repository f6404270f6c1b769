/**
 * The inventory file's form (docs/inventory.md), and its translation into `types.ts`. Strict: an unknown key is an
 * error, since a misspelt one would silently mean its default.
 */
import { homedir } from 'node:os';
import { resolve } from 'node:path';
import * as z from 'zod';
import { parseDestination } from '../ssh/destination.js';
import { parseBitRate, parseDurationMs } from '../units.js';
import type { InventoryDisk, InventoryGuest, InventoryHost, PortRange } from './types.js';

const NAME_PATTERN = /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/;

const name = z
  .string()
  .regex(NAME_PATTERN, 'a name has letters, digits, ".", "_" and "-", and does not begin with "." or "-"');
const text = z.string().min(1, 'must not be empty');
/** A path on the hosts, which may have nothing in common with this machine: absolute or nothing. */
const hostPath = z.string().regex(/^\//, 'must be an absolute path');

function parsed<T>(parse: (value: string) => T | undefined, expected: string) {
  return z.string(`expected ${expected}`).transform((value, context): T => {
    const result = parse(value);
    if (result !== undefined) return result;
    context.addIssue({ code: 'custom', message: `expected ${expected}, got ${JSON.stringify(value)}` });
    return z.NEVER;
  });
}

const host = z.strictObject({
  ssh: text.refine((value) => parseDestination(value) !== undefined, 'expected [user@]host[:port]').optional(),
  sshConfig: text.optional(),
  identityFile: text.optional(),
  knownHosts: text.optional(),
  connectTimeout: parsed(parseDurationMs, 'a duration such as 10s').optional(),
  address: text.optional(),
  linkPorts: z
    .union([z.string(), z.int().transform(String)])
    .pipe(parsed(parsePortRange, 'a port or a range such as 49152-49215'))
    .optional(),
  bandwidth: parsed(parseBitRate, 'a rate such as 200mbit').optional(),
  vmmig: z.union([text, z.array(text).min(1)]).default('vmmig'),
  stateDir: hostPath.default('/var/lib/vmmig'),
  runDir: hostPath.default('/run/vmmig'),
  libvirtUri: text.optional(),
  qemu: hostPath.optional(),
  hostname: text.optional(),
});

const disk = z.strictObject({
  path: hostPath,
  paths: z.record(name, hostPath).default({}),
  keyFile: hostPath.optional(),
});

const guest = z.strictObject({
  host: name,
  qmp: hostPath,
  agent: hostPath.optional(),
  disks: z.record(text, disk).default({}),
  destination: z
    .strictObject({
      argv: z.array(z.string()).min(1).optional(),
      options: z.array(z.string()).default([]),
      replace: z.record(text, z.string()).default({}),
    })
    .prefault({}),
});

/** An empty section (`guests:` with nothing under it) is null in YAML. */
const section = <T extends z.ZodType>(entry: T) => z.preprocess((value) => value ?? {}, z.record(name, entry));

export const inventorySchema = z.strictObject({ hosts: section(host), guests: section(guest) });

export type HostInFile = z.output<typeof host>;
/** A host as it is written to the file by `addHost`. */
export type HostEntry = z.input<typeof host>;
export type GuestInFile = z.output<typeof guest>;

/** @param directory what the paths to this machine's files are relative to. */
export function toHost(hostName: string, inFile: HostInFile, directory: string): InventoryHost {
  const { connectTimeout, bandwidth, ...same } = dropUndefined(inFile);
  return {
    ...same,
    name: hostName,
    ssh: inFile.ssh ?? hostName,
    hostname: inFile.hostname ?? hostName,
    vmmig: typeof inFile.vmmig === 'string' ? inFile.vmmig.trim().split(/\s+/) : inFile.vmmig,
    ...(inFile.sshConfig && { sshConfig: localPath(inFile.sshConfig, directory) }),
    ...(inFile.identityFile && { identityFile: localPath(inFile.identityFile, directory) }),
    ...(inFile.knownHosts && { knownHosts: localPath(inFile.knownHosts, directory) }),
    ...(connectTimeout !== undefined && { connectTimeoutMs: connectTimeout }),
    ...(bandwidth !== undefined && { bandwidthBitsPerSecond: bandwidth }),
  };
}

/** A host with nothing but its SSH destination: one that the inventory does not name. */
export function defaultHost(hostName: string, ssh: string): InventoryHost {
  return toHost(hostName, host.parse({ ssh }), '/');
}

export function toGuest(guestName: string, inFile: GuestInFile): InventoryGuest {
  return { ...dropUndefined(inFile), name: guestName, destination: dropUndefined(inFile.destination) };
}

/** Where a guest's disk is on a host. */
export function diskPathOn(diskInInventory: InventoryDisk, hostName: string): string {
  return diskInInventory.paths[hostName] ?? diskInInventory.path;
}

function localPath(path: string, directory: string): string {
  return path === '~' || path.startsWith('~/') ? homedir() + path.slice(1) : resolve(directory, path);
}

function parsePortRange(value: string): PortRange | undefined {
  const match = /^(\d+)(?:-(\d+))?$/.exec(value);
  if (!match) return undefined;
  const first = Number(match[1]);
  const last = Number(match[2] ?? match[1]);
  return first >= 1 && first <= last && last <= 65_535 ? { first, last } : undefined;
}

type Defined<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>;
};

/** zod gives optional fields as `undefined`; the types here leave them out. */
function dropUndefined<T extends object>(value: T): Defined<T> {
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as Defined<T>;
}
