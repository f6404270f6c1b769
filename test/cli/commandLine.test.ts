import { describe, expect, it } from 'vitest';
import { run } from '../../cli/run.js';
import { verbTable } from '../../cli/verbs/index.js';
import { version } from '../../cli/version.js';
import { TextStream } from './support/terminal.js';
import { vmmig } from './support/vmmig.js';

/** In this process, which is quicker; what a process of its own adds is tested at the end. */
async function inProcess(args: readonly string[]) {
  const stdout = new TextStream();
  const stderr = new TextStream();
  const exitCode = await run(args, { env: {}, stdout, stderr });
  return { exitCode, stdout: stdout.text, stderr: stderr.text };
}

describe('a usage error', () => {
  it.each([
    [['telport', 'vm1'], /no verb "telport".*Did you mean "vmmig teleport"\?/s],
    [['frobnicate'], /no verb "frobnicate".*The verbs are teleport, switch, preflight/s],
    [['switch', 'vm1', '--to', 'b', '--after', 'soon'], /--after: "soon" is neither now nor converged nor a time/],
    [['switch', 'vm1', '--to', 'b', '--prefetch', 'half'], /--prefetch: "half" is not a share: give it as 50%/],
    [['switch', 'vm1', '--to', 'b', '--max-exposure', '60'], /--max-exposure: "60" has no unit/],
    [['preflight', 'vm1', '--to', 'b', '--mode', 'copy'], /--mode: "copy" is none of "teleport", "switch"/],
    [['recover'], /"recover" needs <vm>/],
    [['host', 'ad', 'x'], /no verb "host ad".*Did you mean "vmmig host add"\?/s],
    [['host'], /no verb was given after "host"/],
    [['teleport'], /"teleport" needs <vm>/],
    [['teleport', 'vm1'], /--to is missing/],
    [['teleport', 'vm1', '--to'], /--to needs a value/],
    [['teleport', 'vm1', '--to', 'b', '--bandwith', '1mbit'], /no option "--bandwith".*Did you mean "--bandwidth"\?/s],
    [['teleport', 'vm1', '--to', 'b', '--bandwidth', '200'], /--bandwidth: "200" has no unit/],
    [['teleport', 'vm1', '--to', 'b', '--max-downtime', 'soon'], /--max-downtime: "soon" is not a duration/],
    [['teleport', 'vm1', '--to', 'b', '--connections', '0'], /--connections: "0" is not a whole number/],
    [['teleport', 'vm1', '--to', 'b', '--progress', 'fancy'], /--progress: "fancy" is none of "auto", "tty"/],
    [['teleport', 'vm1', 'vm2', '--to', 'b'], /does not understand "vm2"/],
    [['teleport', 'vm1', 'from', '--to', 'b'], /does not understand "from"/],
    [['lab', 'ssh', 'hostC'], /<host>: "hostC" is none of "hostA", "hostB"/],
    [[], /no verb was given.*Verbs:.*vmmig teleport <vm>/s],
  ])('exits with 2, says what is right on stderr, and leaves stdout alone: %j', async (args, message) => {
    const { exitCode, stdout, stderr } = await inProcess([...args, '--json']);
    expect(stderr).toMatch(message);
    expect(stdout).toBe('');
    expect(exitCode).toBe(2);
  });
});

describe('help', () => {
  it('goes to stdout, names every verb and says what the exit codes mean', async () => {
    const { exitCode, stdout, stderr } = await inProcess(['--help']);
    expect(exitCode).toBe(0);
    expect(stderr).toBe('');
    for (const entry of verbTable) {
      const hidden = entry.kind === 'verb' && entry.describe === false;
      expect(stdout.includes(`vmmig ${entry.name}`)).toBe(!hidden);
    }
    expect(stdout).toContain('7  unknown: the source is kept paused');
  });

  it('of a verb shows its options before the common ones, and examples', async () => {
    const { stdout } = await inProcess(['teleport', '--help']);
    expect(stdout.indexOf('--max-downtime')).toBeLessThan(stdout.indexOf('With every verb:'));
    expect(stdout).toContain('vmmig teleport vm1 --to hostB');
  });

  it('has a version', async () => {
    const { stdout, exitCode } = await inProcess(['--version']);
    expect(stdout).toBe(`${version()}\n`);
    expect(exitCode).toBe(0);
  });
});

describe('the process', () => {
  it('exits with the code that was found, and has written everything by then', async () => {
    const { exitCode, stdout, stderr } = await vmmig(['telport', 'vm1']);
    expect(exitCode).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toMatch(/^vmmig: there is no verb "telport"\nDid you mean "vmmig teleport"\?\n$/);
  });
});
