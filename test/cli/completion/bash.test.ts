import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { shells } from '../../../cli/completion/scripts.js';
import { run } from '../../../cli/run.js';
import { TextStream } from '../support/terminal.js';

let directory: string;

/** What a real bash offers for a line, the cursor at its end. */
async function offered(line: string): Promise<string[]> {
  const words = line.split(' ');
  const script = `
    source <(vmmig completion bash)
    COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}) COMP_CWORD=${words.length - 1}
    complete -p vmmig | grep -q -- '-F _vmmig' || exit 9
    compopt() { echo "compopt $*"; }
    _vmmig vmmig '' ''
    printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout } = await execa('bash', ['--norc', '--noprofile', '-c', script], {
    env: { PATH: `${directory}:${process.env.PATH}`, VMMIG_INVENTORY: join(directory, 'inventory.yaml') },
    cwd: fileURLToPath(new URL('../../../', import.meta.url)),
  });
  return stdout.split('\n');
}

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'vmmig-completion-'));
  const main = fileURLToPath(new URL('../../../cli/main.ts', import.meta.url));
  await writeFile(join(directory, 'vmmig'), `#!/bin/sh\nexec "${process.execPath}" --import tsx "${main}" "$@"\n`);
  await chmod(join(directory, 'vmmig'), 0o755);
  const inventory = 'hosts:\n  hostA: {}\n  hostB: {}\nguests:\n  vm1: { host: hostA, qmp: /run/vm1.qmp }\n';
  await writeFile(join(directory, 'inventory.yaml'), inventory);
});

afterAll(() => rm(directory, { recursive: true, force: true }));

describe('completion in bash', () => {
  it('completes verbs, options and values', async () => {
    expect(await offered('vmmig tele')).toEqual(['teleport']);
    expect(await offered('vmmig teleport vm1 --max')).toEqual(['--max-downtime']);
    expect(await offered('vmmig teleport vm1 --progress p')).toEqual(['plain']);
  });

  it('completes guests and hosts from the inventory', async () => {
    expect(await offered('vmmig teleport ')).toEqual(['vm1']);
    expect(await offered('vmmig teleport vm1 --to h')).toEqual(['hostA', 'hostB']);
  });

  it('leaves file names to bash', async () => {
    expect(await offered('vmmig stream inspect ')).toEqual(['compopt -o default', '']);
  });
});

describe('the completion scripts', () => {
  it.each(shells)('of %s are printed alone on stdout', async (shell) => {
    const stdout = new TextStream();
    const stderr = new TextStream();
    const exitCode = await run(['completion', shell], { env: {}, stdout, stderr });
    expect(stdout.text).toMatch(/^#.*vmmig/);
    expect(stdout.text).toContain('vmmig __complete -- ');
    expect(stderr.text).toBe('');
    expect(exitCode).toBe(0);
  });
});
