/** A destination relay that spoils one page is found out before the guest runs there, and the guest goes on where it was. */
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import { labPaths, setWan } from '../../lab/index.js';
import { expectNothingLeft, fastWan, Guest, isFull, useLab } from './rig.js';

/** For pages to be sent more than once. */
const busyWan = { rttMs: 10, rateBps: 100e6 } as const;
const spoilt = [
  ['corrupt', 'other bytes than were sent'],
  ['drop', 'one page less'],
  ['stale', 'an older version of a page'],
] as const;

describe('A destination that puts together', () => {
  let guest: Guest;

  useLab(fastWan);

  beforeAll(async () => {
    guest = await Guest.start('vm1', { memoryMiB: 128, data: { contents: 'random', filesMiB: 8, freeMiB: 8 } });
    await guest.run('pattern start 8 400');
    await setWan(busyWan);
  });

  /** An inventory in which vmmig on the destination is one that spoils a page. */
  async function inventoryWith(tamper: string): Promise<string> {
    const program = join(labPaths.shared(), `vmmig-${tamper}`);
    const script = resolve(import.meta.dirname, 'verification/tamperingVmmig.ts');
    const tsx = import.meta.resolve('tsx');
    await writeFile(
      program,
      `#!/bin/sh\nVMMIG_TEST_TAMPER=${tamper} exec ${process.execPath} --import ${tsx} ${script} "$@"\n`,
    );
    await chmod(program, 0o755);
    const { hosts, ...rest } = parse(await readFile(labPaths.inventory(), 'utf8'));
    hosts[guest.otherHost].vmmig = program;
    const path = join(labPaths.shared(), `${tamper}.yaml`);
    await writeFile(path, stringify({ ...rest, hosts }));
    return path;
  }

  it.each(isFull ? spoilt : spoilt.slice(0, 1))(
    '(%s) %s is found out, and the guest stays',
    { timeout: 240_000 },
    async (tamper) => {
      const counted = await guest.count();
      const options = [
        '--inventory',
        await inventoryWith(tamper),
        '--no-agent',
        '--no-compress',
        '--max-downtime',
        '5s',
      ];
      const { exitCode, report, stderr } = await guest.begin(...options).ended;
      expect(exitCode, stderr).toBe(1);
      expect(report, stderr).toMatchObject({ result: 'failed', vmLocation: 'source' });
      expect(report.verified).not.toBe(true);
      expect(report.error!.code).toBe('VMMIG_RELAY_VERIFY');
      await guest.expectToRun(counted);
      expect(await guest.run('pattern status')).toMatch(/ errors 0 /);
      await expectNothingLeft([guest]);
    },
  );

  it('what was sent is taken', { timeout: 240_000 }, async () => {
    await guest.teleport('--no-agent', '--no-compress', '--max-downtime', '5s');
    expect(await guest.run('pattern status')).toMatch(/ errors 0 /);
  });
});
