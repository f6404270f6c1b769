/**
 * Changes to the inventory file that leave everything else in it as the operator wrote it, comments included.
 * The file is replaced in one step: a crash leaves the old one or the new one.
 */
import { randomBytes } from 'node:crypto';
import { chmod, mkdir, readFile, realpath, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type Document, isMap } from 'yaml';
import { InventoryError } from './inventoryError.js';
import { inventoryPath, type LoadInventoryOptions, parseInventory, parseYaml } from './load.js';
import type { HostEntry } from './schema.js';
import type { Inventory } from './types.js';

/**
 * Adds a host, or replaces the one of that name. Creates the file when there is none.
 * @returns the inventory as it is now.
 * @throws InventoryError when the file is, or would become, invalid. It is left as it was then.
 */
export async function addHost(name: string, entry: HostEntry, options: LoadInventoryOptions = {}): Promise<Inventory> {
  return await edit(options, true, (document) => {
    // A section with nothing in it is null, which cannot be added to.
    if (!isMap(document.get('hosts'))) document.set('hosts', document.createNode({}));
    document.setIn(['hosts', name], document.createNode(entry));
  });
}

/**
 * Removes a host.
 * @returns the inventory as it is now.
 * @throws InventoryError when there is no such host, or a guest still refers to it.
 */
export async function removeHost(name: string, options: LoadInventoryOptions = {}): Promise<Inventory> {
  return await edit(options, false, (document, path) => {
    if (document.deleteIn(['hosts', name])) return;
    const issue = { line: 0, field: `hosts.${name}`, message: 'there is no such host' };
    throw new InventoryError('VMMIG_INVENTORY_INVALID', path, [issue]);
  });
}

async function edit(
  options: LoadInventoryOptions,
  mayCreate: boolean,
  change: (document: Document, path: string) => void,
): Promise<Inventory> {
  const { path } = inventoryPath(options);
  const { document } = parseYaml(await read(path, mayCreate), path);
  if (document.contents === null) document.contents = document.createNode({});
  change(document, path);
  const text = document.toString({ lineWidth: 0 });
  const inventory = parseInventory(text, path);
  await replaceFile(path, text);
  return inventory;
}

async function read(path: string, mayBeMissing: boolean): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (mayBeMissing && (error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    const issue = { line: 0, field: '', message: `cannot be read: ${(error as Error).message}` };
    throw new InventoryError('VMMIG_INVENTORY_NOT_FOUND', path, [issue], { cause: error });
  }
}

async function replaceFile(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  // Through a symbolic link (a dotfiles repository), the file it leads to is replaced, not the link.
  const target = await realpath(path).catch(() => path);
  const mode = (await stat(target).catch(() => undefined))?.mode ?? 0o600;
  const temporary = `${target}.${randomBytes(6).toString('hex')}`;
  try {
    await writeFile(temporary, text, { flag: 'wx', mode: 0o600 });
    await chmod(temporary, mode & 0o777);
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
