import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { scriptedReport } from './support/scriptedMigration.js';
import { scriptedVmmig } from './support/vmmig.js';

const teleport = ['teleport', 'vm1', '--to', 'hostB'];
const fast = { env: { PACE: '100' } };

/** Resolves when the process has said `text` on stderr. */
async function said(child: ReturnType<typeof scriptedVmmig>, text: string): Promise<void> {
  let heard = '';
  for await (const chunk of child.stderr!) {
    heard += String(chunk);
    if (heard.includes(text)) return;
  }
  throw new Error(`"${text}" was not said, but: ${heard}`);
}

describe('a migration', () => {
  it('puts the report on stdout and progress on stderr', async () => {
    const { exitCode, stdout, stderr } = await scriptedVmmig('course', teleport, fast);
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^✔ vm1 runs on hostB: moved in 2\.31 s, downtime 287 ms\n/);
    expect(stdout).toMatch(/teleported +102,400 +400 MiB +39 % +not sent/);
    expect(stderr).toMatch(/0:00 preflight took 120 ms/);
    expect(stdout + stderr).not.toContain('\x1b');
  });

  it('with --json puts the report, and nothing else, on stdout', async () => {
    const { exitCode, stdout } = await scriptedVmmig('course', [...teleport, '--json'], fast);
    expect(JSON.parse(stdout)).toEqual(scriptedReport());
    expect(exitCode).toBe(0);
  });

  it('with --progress rawjson puts JSON lines, and nothing else, on stderr', async () => {
    const { stderr } = await scriptedVmmig('course', [...teleport, '--json', '--progress', 'rawjson'], fast);
    const events = stderr
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { type: string });
    expect(events[0]?.type).toBe('start');
    expect(events.at(-1)).toEqual({ type: 'end', report: scriptedReport() });
  });

  it('with --progress none and success says nothing on stderr', async () => {
    const { stderr } = await scriptedVmmig('course', [...teleport, '--progress', 'none', '--json'], fast);
    expect(stderr).toBe('');
  });

  it('exits with 4 when a host is out of reach', async () => {
    const { exitCode, stdout, stderr } = await scriptedVmmig('no-route', [...teleport, '--json']);
    expect(exitCode).toBe(4);
    expect(stdout).toBe('');
    expect(stderr).toContain('VMMIG_SSH_CONNECT: hostB: no route to host');
  });

  it('goes on when nobody reads its output any more', async () => {
    const child = scriptedVmmig('committed', teleport, { env: { RELEASE_MS: '500' } });
    child.stdout?.destroy();
    child.stderr?.destroy();
    expect((await child).exitCode).toBe(0);
  });
});

describe('an interruption', () => {
  it.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)(
    'by %s before the commit point cancels: exit code 3',
    async (signal) => {
      const child = scriptedVmmig('hang', [...teleport, '--json']);
      await said(child, 'precopy ...');
      child.kill(signal);
      const { exitCode, stdout } = await child;
      expect(exitCode).toBe(3);
      expect(JSON.parse(stdout)).toMatchObject({ result: 'cancelled', vmLocation: 'source' });
    },
  );

  it('after the commit point cancels nothing, and the migration ends as it would have', async () => {
    const child = scriptedVmmig('committed', teleport, { env: { RELEASE_MS: '1500' } });
    await said(child, 'release source');
    child.kill('SIGINT');
    expect((await child).exitCode).toBe(0);
  });

  it('forces its way out only the third time, and not by SIGTERM', async () => {
    const child = scriptedVmmig('stuck', teleport);
    await said(child, 'precopy ...');
    for (let press = 0; press < 5; press++) {
      child.kill('SIGTERM');
      await sleep(30);
    }
    child.kill('SIGINT');
    await sleep(100);
    expect(child.exitCode).toBeNull();
    child.kill('SIGINT');
    expect((await child).exitCode).toBe(3);
  });
});
