import { describe, expect, it } from 'vitest';
import { candidates, completeFiles } from '../../../cli/completion/candidates.js';
import { verbTable } from '../../../cli/verbs/index.js';

const asked: (string | undefined)[] = [];

async function completed(...words: string[]): Promise<readonly string[] | string> {
  asked.length = 0;
  const found = await candidates(words, verbTable, async (inventoryPath) => {
    asked.push(inventoryPath);
    return { guests: ['vm1', 'vm2', 'web'], hosts: ['hostA', 'hostB'] };
  });
  return typeof found === 'string' ? found : found.map((candidate) => candidate.value);
}

describe('completion', () => {
  it('offers verbs, without the hidden ones, and asks no inventory for them', async () => {
    const verbs = await completed('');
    expect(verbs).toContain('teleport');
    expect(verbs).toContain('host');
    expect(verbs).not.toContain('host-service');
    expect(verbs).not.toContain('__complete');
    expect(await completed('te')).toEqual(['teleport']);
    expect(asked).toEqual([]);
  });

  it('offers the verbs of a group', async () => {
    expect(await completed('host', '')).toEqual(['add', 'list', 'check', 'remove']);
    expect(await completed('lab', 's')).toEqual(['status', 'ssh']);
  });

  it('offers guests where a guest is meant and hosts where a host is meant', async () => {
    expect(await completed('teleport', 'v')).toEqual(['vm1', 'vm2']);
    expect(await completed('teleport', 'vm1', '--to', '')).toEqual(['hostA', 'hostB']);
    expect(await completed('teleport', '--to', 'hostB', '--json', 'w')).toEqual(['web']);
    expect(await completed('host', 'check', 'hostA')).toEqual(['hostA']);
    expect(await completed('teleport', 'vm1', 'v')).toEqual([]);
  });

  it('offers the values of options, in one word or two', async () => {
    expect(await completed('teleport', 'vm1', '--progress', 'r')).toEqual(['rawjson']);
    expect(await completed('teleport', 'vm1', '--to=hostB', '--progress=r')).toEqual(['--progress=rawjson']);
    expect(await completed('teleport', 'vm1', '--to', '=', 'hostA')).toEqual(['hostA']);
    expect(await completed('teleport', 'vm1', '--to', '=')).toEqual(['hostA', 'hostB']);
    expect(await completed('lab', 'ssh', '')).toEqual(['hostA', 'hostB']);
    expect(await completed('completion', '')).toEqual(['bash', 'zsh', 'fish']);
  });

  it('offers the options of the verb that are not given yet', async () => {
    expect(await completed('teleport', 'vm1', '--m')).toEqual(['--max-downtime']);
    expect(await completed('teleport', 'vm1', '--to', 'hostB', '--t')).toEqual(['--timeout']);
    expect(await completed('list', '--j')).toEqual(['--json']);
  });

  it('leaves files to the shell, and what is free to whoever types', async () => {
    expect(await completed('stream', 'inspect', 'x')).toBe(completeFiles);
    expect(await completed('list', '--inventory', '')).toBe(completeFiles);
    expect(await completed('teleport', 'vm1', '--bandwidth', '')).toEqual([]);
    expect(await completed('lab', 'ssh', 'hostA', '--', 'l')).toEqual([]);
  });

  it('reads names from the inventory that the line names', async () => {
    await completed('--inventory', '/etc/inv.yaml', 'teleport', '');
    expect(asked).toEqual(['/etc/inv.yaml']);
    await completed('teleport', '--inventory=/etc/other.yaml', '');
    expect(asked).toEqual(['/etc/other.yaml']);
  });
});
