/** What `npm pack` gives is what a host needs. */
import { cp, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../', import.meta.url));

describe('the package', () => {
  let files: Map<string, number>;
  let directory: string;

  beforeAll(async () => {
    const { stdout } = await execa('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: root });
    const [contents] = JSON.parse(stdout) as [{ files: { path: string; size: number }[] }];
    files = new Map(contents.files.map(({ path, size }) => [path, size]));
    directory = await mkdtemp(join(tmpdir(), 'vmmig-package-'));
    for (const path of files.keys()) await cp(join(root, path), join(directory, path));
    await symlink(join(root, 'node_modules'), join(directory, 'node_modules'));
  });

  afterAll(() => rm(directory, { recursive: true, force: true }));

  it.each([
    'dist/bin/vmmig.js',
    'dist/bin/command.cjs',
    'dist/bin/command.cache',
    'dist/guest-agent/vmmig-agent',
    'guest-agent/systemd/vmmig-agent.service',
    'lab/host/labHost.c',
    'lab/wan/wanLink.c',
    'lab/guest/root/init',
    'lab/guest/tools/tools.h',
    'scripts/debianPackages.json',
    'docs/errors.md',
    'README.md',
    'LICENSE',
  ])('holds %s', (path) => {
    expect([...files.keys()]).toContain(path);
  });

  it('holds no sources, tests or benchmarks', () => {
    const superfluous = [...files.keys()].filter((path) => /\.tsx?$|^test\/|^dist\/(test|bench)\//.test(path));
    expect(superfluous).toEqual([]);
  });

  it('has an agent under 1 MB that depends on nothing', async () => {
    expect(files.get('dist/guest-agent/vmmig-agent')).toBeLessThan(1_000_000);
    const { all } = await execa('ldd', [join(root, 'dist/guest-agent/vmmig-agent')], { all: true, reject: false });
    expect(all).toMatch(/not a dynamic executable|statically linked/);
  });

  it('runs, and finds its agent', async () => {
    const { stdout } = await execa(process.execPath, [join(directory, 'dist/bin/vmmig.js'), 'doctor', '--json'], {
      reject: false,
    });
    expect(stdout).toContain(join(directory, 'dist/guest-agent/vmmig-agent'));
  });

  it('is compiled for the Node.js that built it', async () => {
    const asks = `process.argv.push('vmmig', '--version'); process.once('exit', () => console.log(script.cachedDataRejected));
      const { script } = require(${JSON.stringify(join(directory, 'dist/bin/vmmig.js'))});`;
    const { stdout } = await execa(process.execPath, ['-e', asks]);
    expect(stdout).toMatch(/^\d+\.\d+\.\d+\nfalse$/);
  });

  it('says something within 200 ms of what Node.js itself takes to start', { timeout: 30_000 }, async () => {
    const best = async (args: readonly string[]) => {
      const times: number[] = [];
      for (let run = 0; run < 7; run++) times.push(await firstOutputMs(args));
      return Math.min(...times);
    };
    const node = await best(['-e', 'console.log()']);
    // A terminal is not needed: the first line of plain progress comes as early as the first frame.
    const inventory = join(directory, 'inventory.yaml');
    const hosts = 'hosts: { a: { ssh: "127.0.0.1:9" }, b: { ssh: "127.0.0.1:9" } }';
    await writeFile(inventory, `${hosts}\nguests: { vm1: { host: a, qmp: /nowhere } }\n`);
    const teleport = ['teleport', 'vm1', '--to', 'b', '--inventory', inventory];
    const vmmig = await best([join(directory, 'dist/bin/vmmig.js'), ...teleport]);
    expect(vmmig - node).toBeLessThan(200);
  });
});

/** From the start of a Node.js process to the first byte it writes. */
async function firstOutputMs(args: readonly string[]): Promise<number> {
  const startMs = performance.now();
  const child = execa(process.execPath, [...args], { reject: false, buffer: false, stdin: 'ignore' });
  const elapsedMs = await new Promise<number>((resolve) => {
    for (const stream of [child.stdout, child.stderr]) stream?.once('data', () => resolve(performance.now() - startMs));
  });
  child.kill('SIGKILL');
  await child;
  return elapsedMs;
}
