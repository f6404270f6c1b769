/**
 * Puts the compiled command and the libraries it uses into one file, `dist/bin/command.cjs`, and V8's compiled form of it
 * beside that: started from some seven hundred files, as they are published, vmmig takes several times as long to say its
 * first word, and each host's service adds to every migration. What is loaded as machine code stays a dependency. The
 * libraries' licences go along.
 */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const project = dirname(dirname(fileURLToPath(import.meta.url)));
const outdir = join(project, 'dist/bin');

/** Three copies of one library each load the rules of all languages as soon as they are imported. */
const segmentLazily = {
  name: 'segment-lazily',
  setup({ onLoad }) {
    onLoad({ filter: /string-width\/index\.js$/ }, ({ path }) => {
      const eager = 'const segmenter = new Intl.Segmenter();';
      const source = readFileSync(path, 'utf8');
      if (!source.includes(eager)) throw new Error(`${path} is not as expected any more`);
      const lazy = 'const segmenter = { segment: (text) => (segmenter.own ??= new Intl.Segmenter()).segment(text) };';
      return { contents: source.replace(eager, lazy) };
    });
  },
};

rmSync(outdir, { recursive: true, force: true });
const { metafile } = await build({
  absWorkingDir: project,
  entryPoints: { command: 'dist/cli/main.js' },
  outdir,
  outExtension: { '.js': '.cjs' },
  bundle: true,
  platform: 'node',
  format: 'cjs',
  target: 'node20',
  supported: {
    // What is not bundled is small, and required.
    'dynamic-import': false,
    // Node.js compiles an expression when it is first used; `new RegExp`, which esbuild would write instead, does so at once.
    'regexp-set-notation': true,
    'regexp-unicode-property-escapes': true,
  },
  minify: true,
  keepNames: true,
  legalComments: 'none',
  metafile: true,
  logLevel: 'warning',
  plugins: [segmentLazily],
  // ssh2 does without its machine code where that is missing.
  external: ['koffi', 'zstd-napi', 'cpu-features', '*.node'],
  define: { 'import.meta.url': 'moduleUrl' },
  banner: { js: "const moduleUrl = require('node:url').pathToFileURL(__filename).href;" },
});
writeFileSync(join(outdir, 'package.json'), '{ "type": "commonjs" }\n');
copyFileSync(join(project, 'scripts/start.cjs'), join(outdir, 'vmmig.js'));
chmodSync(join(outdir, 'vmmig.js'), 0o755);
writeFileSync(join(outdir, 'LICENSES.txt'), licences(Object.keys(metafile.inputs)));
compile();

/** What a migration runs before there is anything to migrate, of the command and of the service. */
function compile() {
  const directory = mkdtempSync(join(tmpdir(), 'vmmig-compile-'));
  try {
    const inventory = join(directory, 'inventory.yaml');
    const hosts = `hosts: { a: { hostname: ${JSON.stringify(hostname())} }, b: { ssh: "127.0.0.1:9" } }`;
    writeFileSync(inventory, `${hosts}\nguests: { vm1: { host: a, qmp: /nowhere } }\n`);
    const run = (...args) => {
      const { status, stderr } = spawnSync(process.execPath, [join(project, 'scripts/compile.cjs'), ...args], {
        input: '',
        env: { ...process.env, HOME: directory, XDG_STATE_HOME: directory, XDG_RUNTIME_DIR: directory },
      });
      if (status === null || !existsSync(join(outdir, 'command.cache'))) throw new Error(String(stderr));
    };
    run('host-service');
    run('preflight', 'vm1', '--to', 'b', '--inventory', inventory, '--json');
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Of every package that a file was taken from. */
function licences(inputs) {
  const directories = inputs.map((input) => /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1]);
  const packages = [...new Set(directories.filter((directory) => directory !== undefined))].sort();
  return packages.map(licence).join(`\n${'-'.repeat(80)}\n\n`);
}

function licence(directory) {
  const path = join(project, directory);
  const { name, version, license } = JSON.parse(readFileSync(join(path, 'package.json'), 'utf8'));
  const file = readdirSync(path).find((entry) => /^licen[cs]e/i.test(entry));
  return `${name} ${version} (${license})\n\n${file === undefined ? '' : readFileSync(join(path, file), 'utf8')}`;
}
