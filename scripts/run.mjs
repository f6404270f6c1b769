/**
 * What the npm scripts run, in a fresh clone with nothing installed but Node, npm and git: installs what is missing,
 * builds, and then does what was asked. Plain Node, because it runs before there is anything else.
 *
 *     node scripts/run.mjs build | demo | bench NAME | test [VITEST ARGUMENTS] | test:full [VITEST ARGUMENTS]
 *                          | fuzz [all|NAME[,NAME…]] [INPUTS] | soak [VITEST ARGUMENTS]
 *
 * `test` ends with the line "N passed, N failed"; all of lint counts as one. `test:full` also runs what takes minutes
 * (VMMIG_TEST_FULL=1). `soak` moves each guest VMMIG_SOAK_MOVES times, 20 unless that is set.
 */
import { spawn } from 'node:child_process';
import { accessSync, chmodSync, constants, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const project = dirname(dirname(fileURLToPath(import.meta.url)));
const isRoot = process.getuid?.() === 0;

/** What makes file systems and network links is root's, and not on everybody's path. */
const systemDirectories = ['/usr/local/sbin', '/usr/sbin', '/sbin'];
const path = (process.env.PATH ?? '').split(delimiter);
process.env.PATH = [...path, ...systemDirectories.filter((directory) => !path.includes(directory))].join(delimiter);

class Failure extends Error {}

/** What runs at the moment. */
const children = new Set();
/** By a Ctrl-C, or a signal. */
let isToldToEnd = false;

/** Runs a command and gives its exit code. `quiet` shows its output only when it fails. */
function run(command, args, { quiet = false, env = {} } = {}) {
  return new Promise((resolve, reject) => {
    const output = [];
    const stdio = quiet ? ['ignore', 'pipe', 'pipe'] : 'inherit';
    const child = spawn(command, args, { cwd: project, stdio, env: { ...process.env, ...env } });
    children.add(child);
    child.stdout?.on('data', (chunk) => output.push(chunk));
    child.stderr?.on('data', (chunk) => output.push(chunk));
    child.once('error', (error) => reject(new Failure(`${command}: ${error.message}`)));
    child.once('close', (code, signal) => {
      children.delete(child);
      if (quiet && code !== 0) process.stderr.write(Buffer.concat(output));
      resolve(signal === 'SIGINT' ? 130 : (code ?? 1));
    });
  });
}

/** Like `run`, as root: directly, or with sudo. */
function runAsRoot(command, args, options = {}) {
  if (isRoot) return run(command, args, options);
  const kept = {
    PATH: process.env.PATH,
    ...pick('VMMIG_LAB_DIR', 'VMMIG_CACHE_DIR', 'VMMIG_SOAK_MOVES'),
    ...options.env,
  };
  const assignments = Object.entries(kept).map(([name, value]) => `${name}=${value}`);
  return run('sudo', ['--', 'env', ...assignments, command, ...args], options);
}

/** One line per step, with the time it took. */
async function step(name, action) {
  const began = performance.now();
  const code = await action();
  const seconds = ((performance.now() - began) / 1000).toFixed(1).padStart(6);
  console.log(`${seconds} s  ${name}${code === 0 ? '' : ': failed'}`);
  return code;
}

async function mustStep(name, action) {
  if ((await step(name, action)) !== 0) throw new Failure(`${name} failed`);
}

function checkMachine() {
  const { engines } = JSON.parse(readFileSync(join(project, 'package.json'), 'utf8'));
  const wanted = /(\d+)\.(\d+)/.exec(engines.node).slice(1).map(Number);
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < wanted[0] || (major === wanted[0] && minor < wanted[1])) {
    throw new Failure(`Node.js ${wanted.join('.')} or newer is needed; this is ${process.versions.node}`);
  }
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new Failure(`vmmig needs Linux on x86-64; this is ${process.platform} on ${process.arch}`);
  }
}

function requireRoot(why) {
  if (!isRoot && !isOnPath('sudo')) throw new Failure(`Root is needed ${why}: run this as root, or install sudo`);
}

async function installPackages() {
  const wanted = JSON.parse(readFileSync(join(project, 'scripts/debianPackages.json'), 'utf8'));
  if (!isOnPath('dpkg-query')) {
    throw new Failure(`This is not Debian; install by other means what these packages hold: ${wanted.join(' ')}`);
  }
  const missing = [];
  for (const name of wanted) {
    const status = await capture('dpkg-query', ['-s', name]);
    if (!/^Status: .* installed$/m.test(status)) missing.push(name);
  }
  if (missing.length === 0) return;
  requireRoot(`to install Debian packages (${missing.join(' ')})`);
  // Nothing that is installed for the lab shall start on this machine: policy-rc.d is how Debian's packages ask.
  const script = `
    export DEBIAN_FRONTEND=noninteractive
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
      trap 'rm -f $policy' EXIT
      printf '#!/bin/sh\\nexit 101\\n' > $policy && chmod +x $policy
    fi
    apt-get update && apt-get install -y --no-install-recommends "$@"`;
  const args = ['-c', script, 'install', ...missing];
  await mustStep(`install ${missing.length} Debian packages`, () => runAsRoot('bash', args, { quiet: true }));
  if (missing.includes('openssh-server')) {
    console.log('          (its SSH server is not started; "systemctl disable ssh" keeps it so after a reboot)');
  }
}

async function installModules() {
  const installed = join(project, 'node_modules/.package-lock.json');
  const lock = join(project, 'package-lock.json');
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs) return;
  // The exact tree of the lockfile, development tools included whatever NODE_ENV says.
  const args = ['ci', '--include=dev', '--no-audit', '--no-fund'];
  // JOBS: what has no binary for this Node.js is compiled, by node-gyp, on all processors.
  await mustStep('install npm packages', () => run('npm', args, { quiet: true, env: { JOBS: 'max' } }));
}

async function build() {
  await mustStep('compile TypeScript', () => node('typescript/bin/tsc', ['-p', 'tsconfig.json'], { quiet: true }));
  await mustStep('bundle the command', () =>
    run(process.execPath, [join(project, 'scripts/bundle.mjs')], { quiet: true }),
  );
  chmodSync(join(project, 'dist/bin/vmmig.js'), 0o755);
  await mustStep('compile the guest agent', () => run('make', ['-s', '-C', 'guest-agent'], { quiet: true }));
}

async function test(args, env) {
  requireRoot('for the tests: they start guests and network namespaces');
  const directory = mkdtempSync(join(tmpdir(), 'vmmig-test-'));
  const vitest = async (name, more) => {
    const report = join(directory, `${name}.json`);
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
    const program = join(project, 'node_modules/vitest/vitest.mjs');
    if (isToldToEnd) return { passed: 0, failed: 1, skipped: 0 };
    const code = await runAsRoot(process.execPath, [program, 'run', ...reporters, ...more], { env });
    return countTests(report, code);
  };
  try {
    const lane = (name) => vitest(name, [`--project=${name}`]);
    const beside = async () => [await lint(), await lane('parts')];
    // In the full form guests are measured, and what starts them is alone.
    const isFull = Boolean(env.VMMIG_TEST_FULL ?? process.env.VMMIG_TEST_FULL);
    const counts =
      args.length > 0
        ? [await lint(), await vitest('all', args)]
        : isFull
          ? [...(await beside()), await lane('guests')]
          : (await Promise.all([lane('guests'), beside()])).flat();
    const sum = (kind) => counts.reduce((total, each) => total + each[kind], 0);
    if (sum('skipped') > 0) console.log(`${sum('skipped')} skipped`);
    console.log(`${sum('passed')} passed, ${sum('failed')} failed`);
    return sum('failed') === 0 ? 0 : 1;
  } finally {
    rmSync(directory, { recursive: true, force: true });
    // vitest ends at once, and leaves what its tests have started.
    if (isToldToEnd) await runProgram('bin/vmmig.js', ['lab', 'down']);
  }
}

async function lint() {
  const code = await step('lint', () => run('npm', ['run', '--silent', 'lint'], { quiet: true }));
  return { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: 0 };
}

/** Reads vitest's report. A file that could not be loaded, or a run that failed without a failing test, counts as one. */
function countTests(path, code) {
  if (!existsSync(path)) return { passed: 0, failed: 1, skipped: 0 };
  const report = JSON.parse(readFileSync(path, 'utf8'));
  const broken = report.testResults.filter(
    (file) => file.status === 'failed' && !file.assertionResults.some((each) => each.status === 'failed'),
  );
  const failed = report.numFailedTests + broken.length;
  return {
    passed: report.numPassedTests,
    failed: failed === 0 && code !== 0 ? 1 : failed,
    skipped: report.numPendingTests + report.numTodoTests,
  };
}

/** A program of an npm package. */
function node(module, args, options) {
  return run(process.execPath, [join(project, 'node_modules', module), ...args], options);
}

/** A built program of this project, as root. */
function runProgram(path, args) {
  const program = join(project, 'dist', path);
  if (!existsSync(program)) throw new Failure(`There is no ${path.replace(/\.js$/, '')}`);
  requireRoot('for guests and network namespaces');
  return runAsRoot(process.execPath, [program, ...args]);
}

function capture(command, args) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'ignore'] });
    let text = '';
    child.stdout.on('data', (chunk) => {
      text += chunk;
    });
    child.once('error', () => resolve(''));
    child.once('close', () => resolve(text));
  });
}

function isOnPath(command) {
  return (process.env.PATH ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, command), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function pick(...names) {
  return Object.fromEntries(names.filter((name) => process.env[name]).map((name) => [name, process.env[name]]));
}

async function main([verb, ...args]) {
  const verbs = {
    build: () => 0,
    demo: () => runProgram('bench/demo.js', args),
    bench: () => {
      if (args.length === 0) throw new Failure('Which benchmark? bench/ has them');
      return runProgram(`bench/${args[0]}.js`, args.slice(1));
    },
    soak: () => test(['--project=soak', ...args], { VMMIG_SOAK: '1' }),
    test: () => test(args, {}),
    'test:full': () => test(args, { VMMIG_TEST_FULL: '1' }),
    fuzz: () => run(process.execPath, ['--expose-gc', '--import', 'tsx', join(project, 'test/fuzz/main.ts'), ...args]),
  };
  if (!Object.hasOwn(verbs, verb ?? ''))
    throw new Failure(`usage: run.mjs ${Object.keys(verbs).join('|')} [ARGUMENTS]`);
  checkMachine();
  await installPackages();
  await installModules();
  // The fuzzer takes the sources as they are.
  if (verb !== 'fuzz') await build();
  return verbs[verb]();
}

// A Ctrl-C reaches the program that runs, too; that one ends in good order, and is waited for. Another signal it is sent.
process.on('SIGINT', () => {
  isToldToEnd = true;
});
process.on('SIGTERM', () => {
  isToldToEnd = true;
  for (const child of children) child.kill('SIGINT');
});
try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  console.error(`run.mjs: ${error.message}`);
  process.exitCode = 1;
}
