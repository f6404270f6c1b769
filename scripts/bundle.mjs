/**
 * Puts the compiled command and the libraries it uses into a few files, `dist/bin/`: started from some seven hundred,
 * as they are published, vmmig takes twice as long to say its first word, and each host's service adds to every
 * migration. What has native parts stays a dependency. The libraries' licences go along.
 */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const project = dirname(dirname(fileURLToPath(import.meta.url)));
const outdir = join(project, 'dist/bin');

rmSync(outdir, { recursive: true, force: true });
const { metafile } = await build({
  absWorkingDir: project,
  entryPoints: { vmmig: 'dist/cli/main.js' },
  outdir,
  bundle: true,
  splitting: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  minify: true,
  keepNames: true,
  legalComments: 'none',
  metafile: true,
  logLevel: 'warning',
  external: ['koffi', 'ssh2', 'zstd-napi'],
  // What is CommonJS inside asks for Node's own modules this way.
  banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
});
writeFileSync(join(outdir, 'LICENSES.txt'), licences(Object.keys(metafile.inputs)));

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
