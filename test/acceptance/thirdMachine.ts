/** The `vmmig` command on a machine that has no part in a migration: all it has is an inventory and SSH. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { afterAll, beforeAll } from 'vitest';
import { parse, stringify } from 'yaml';
import { labPaths } from '../../lab/index.js';

export interface Inventory {
  hosts: Record<string, { ssh: string; hostname?: string; address?: string; qemu?: string; runDir?: string }>;
  guests: Record<string, { host: string; qmp: string; agent?: string; disks: Record<string, { path: string }> }>;
}

const main = fileURLToPath(new URL('../../dist/bin/vmmig.js', import.meta.url));

export class ThirdMachine {
  #directory = '';

  /** One for a test file. */
  static use(): ThirdMachine {
    const machine = new ThirdMachine();
    beforeAll(async () => {
      machine.#directory = await mkdtemp(join(tmpdir(), 'vmmig-third-'));
    });
    afterAll(() => rm(machine.#directory, { recursive: true, force: true }));
    return machine;
  }

  /** Whatever its exit code is. */
  async vmmig(...args: string[]) {
    const env = { VMMIG_STATE_DIR: join(this.#directory, 'state'), VMMIG_INVENTORY: labPaths.inventory() };
    return await execa(process.execPath, [main, ...args], { env, reject: false, stdin: 'ignore' });
  }

  /** @returns the path of an inventory that differs from the lab's */
  async inventoryWith(change: (inventory: Inventory) => void): Promise<string> {
    const inventory = parse(await readFile(labPaths.inventory(), 'utf8')) as Inventory;
    change(inventory);
    const path = join(this.#directory, 'inventory.yaml');
    await writeFile(path, stringify(inventory));
    return path;
  }
}
