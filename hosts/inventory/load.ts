/** Reads the inventory file. Every complaint names file, line and field. */
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { type Document, isNode, LineCounter, parseDocument } from 'yaml';
import type { z } from 'zod';
import { messageOf } from '../errors.js';
import { InventoryError, type InventoryIssue } from './inventoryError.js';
import { inventorySchema, toGuest, toHost } from './schema.js';
import type { Inventory } from './types.js';

export interface LoadInventoryOptions {
  /** What `--inventory` says. Default: VMMIG_INVENTORY, else vmmig/inventory.yaml in the XDG configuration directory. */
  path?: string | undefined;
  /** Default: `process.env`. */
  env?: NodeJS.ProcessEnv;
}

/**
 * Reads the inventory. When only the default path is left and nothing is there, the inventory is empty: SSH
 * destinations work without one.
 * @throws InventoryError VMMIG_INVENTORY_NOT_FOUND when the file that was asked for cannot be read,
 *   VMMIG_INVENTORY_INVALID with everything that is wrong in it.
 */
export async function loadInventory(options: LoadInventoryOptions = {}): Promise<Inventory> {
  const { path, asked } = inventoryPath(options);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (!asked && (error as NodeJS.ErrnoException).code === 'ENOENT') {
      return { path, exists: false, hosts: new Map(), guests: new Map() };
    }
    const issue = { line: 0, field: '', message: `cannot be read: ${(error as Error).message}` };
    throw new InventoryError('VMMIG_INVENTORY_NOT_FOUND', path, [issue], { cause: error });
  }
  return parseInventory(text, path);
}

/** @param path for messages, and what relative paths in the file are relative to. */
export function parseInventory(text: string, path: string): Inventory {
  const { document, lines } = parseYaml(text, path);
  // An empty document is an empty inventory.
  const result = inventorySchema.safeParse(toPlain(document, path) ?? {});
  if (!result.success) {
    const issues = result.error.issues.flatMap((issue) => toIssues(issue, document, lines));
    throw new InventoryError('VMMIG_INVENTORY_INVALID', path, inFileOrder(issues));
  }
  const directory = dirname(path);
  const hosts = new Map(Object.entries(result.data.hosts).map(([name, host]) => [name, toHost(name, host, directory)]));
  const guests = new Map(Object.entries(result.data.guests).map(([name, guest]) => [name, toGuest(name, guest)]));
  const dangling: InventoryIssue[] = [];
  const mustBeHost = (name: string, ...field: string[]) => {
    if (hosts.has(name)) return;
    dangling.push({
      line: lineOf(document, lines, field),
      field: field.join('.'),
      message: `no host "${name}" in hosts`,
    });
  };
  for (const guest of guests.values()) {
    mustBeHost(guest.host, 'guests', guest.name, 'host');
    for (const [disk, { paths }] of Object.entries(guest.disks)) {
      for (const host of Object.keys(paths)) mustBeHost(host, 'guests', guest.name, 'disks', disk, 'paths', host);
    }
  }
  if (dangling.length > 0) throw new InventoryError('VMMIG_INVENTORY_INVALID', path, inFileOrder(dangling));
  return { path, exists: true, hosts, guests };
}

/** Where the inventory is, and whether someone asked for that file in particular. */
export function inventoryPath({ path, env = process.env }: LoadInventoryOptions): { path: string; asked: boolean } {
  const asked = path || env.VMMIG_INVENTORY;
  if (asked) return { path: resolve(asked), asked: true };
  const configHome = env.XDG_CONFIG_HOME || join(env.HOME || homedir(), '.config');
  return { path: join(configHome, 'vmmig', 'inventory.yaml'), asked: false };
}

/** @throws InventoryError when the text is not YAML. */
export function parseYaml(text: string, path: string): { document: Document; lines: LineCounter } {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  if (document.errors.length > 0) {
    const issues = document.errors.map((error) => ({
      line: lines.linePos(error.pos[0]).line,
      field: '',
      message: error.message,
    }));
    throw new InventoryError('VMMIG_INVENTORY_INVALID', path, issues);
  }
  return { document, lines };
}

function toPlain(document: Document, path: string): unknown {
  try {
    return document.toJS();
  } catch (error) {
    // Aliases that lead nowhere, or that would multiply into something huge.
    const issue = { line: 0, field: '', message: messageOf(error) };
    throw new InventoryError('VMMIG_INVENTORY_INVALID', path, [issue], { cause: error });
  }
}

function toIssues(issue: z.core.$ZodIssue, document: Document, lines: LineCounter): InventoryIssue[] {
  const at = issue.path.map(String);
  const toIssue = (field: string[], message: string) => ({
    line: lineOf(document, lines, field),
    field: field.join('.'),
    message,
  });
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => toIssue([...at, key], 'unknown field'));
    case 'invalid_key':
      return [toIssue(at, issue.issues[0]?.message ?? issue.message)];
    case 'invalid_type':
      return [toIssue(at, /received undefined$/.test(issue.message) ? 'is required' : issue.message)];
    case 'invalid_union':
      return [toIssue(at, issue.errors.flat()[0]?.message ?? issue.message)];
    default:
      return [toIssue(at, issue.message)];
  }
}

/** The line of a field, or of the nearest thing around it that the file does have. */
function lineOf(document: Document, lines: LineCounter, field: readonly string[]): number {
  for (let depth = field.length; depth > 0; depth--) {
    const parent = document.getIn(field.slice(0, depth - 1), true);
    const key = keyNode(parent, field[depth - 1] ?? '');
    const node = key ?? document.getIn(field.slice(0, depth), true);
    if (isNode(node) && node.range) return lines.linePos(node.range[0]).line;
  }
  return 0;
}

/** A field begins at its key: its value may be on a later line. */
function keyNode(parent: unknown, key: string): unknown {
  if (!isNode(parent) || !('items' in parent)) return undefined;
  for (const item of parent.items as { key?: unknown }[]) {
    if (isNode(item.key) && String(item.key) === key) return item.key;
  }
  return undefined;
}

function inFileOrder(issues: InventoryIssue[]): InventoryIssue[] {
  return issues.sort((a, b) => a.line - b.line);
}
