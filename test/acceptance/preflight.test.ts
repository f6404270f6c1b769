/** Everything that is wrong is told at once, each with its remedy; and neither host, nor the guest, is any different afterwards. */
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { guestDirectory, hostNames, labExec } from '../../lab/index.js';
import type { PreflightReport } from '../../migrate/index.js';
import type { QmpClient } from '../../qmp/index.js';
import { fastWan, Guest, processesOn, useLab } from './rig.js';
import { type Inventory, ThirdMachine } from './thirdMachine.js';

/** Something that is wrong, and what is to be said of it. */
interface Trouble {
  readonly name: string;
  readonly found: readonly string[];
  readonly inventory?: (inventory: Inventory) => void;
  readonly qmp?: (qmp: QmpClient) => Promise<unknown>;
  readonly undo?: (qmp: QmpClient) => Promise<unknown>;
  /** A command that runs on the destination meanwhile. */
  readonly there?: readonly [string, ...string[]];
}

const qmpPath = `${guestDirectory}/vm1.qmp`;
const squatted = join(guestDirectory, 'squatted');

const troubles: readonly Trouble[] = [
  {
    name: 'the guest is paused',
    // Nor does an agent answer in it.
    found: ['refuse VMMIG_GUEST_NOT_RUNNING', 'warn VMMIG_PREFLIGHT_NO_AGENT'],
    qmp: (qmp) => qmp.execute('stop'),
    undo: (qmp) => qmp.execute('cont'),
  },
  {
    name: "the guest's disk is not there",
    found: ['refuse VMMIG_DISK_IMAGE'],
    inventory: ({ guests }) => {
      guests.vm1!.disks.data = { path: '/var/empty/nowhere.img' };
    },
  },
  {
    name: 'the destination has no such QEMU',
    found: ['refuse VMMIG_DESTINATION_QEMU'],
    inventory: ({ hosts }) => {
      hosts.hostB!.qemu = '/no/such/qemu';
    },
  },
  {
    name: 'the destination has no place for what vmmig needs',
    found: ['refuse VMMIG_DESTINATION_PATH'],
    inventory: ({ hosts }) => {
      hosts.hostB!.runDir = '/no/such/directory';
    },
  },
  {
    name: "the socket of the guest's monitor is taken",
    found: ['refuse VMMIG_DESTINATION_ADDRESS'],
    there: ['socat', `UNIX-LISTEN:${qmpPath},unlink-early`, `SYSTEM:sleep 60`],
  },
  {
    name: 'no agent answers',
    found: ['warn VMMIG_PREFLIGHT_NO_AGENT'],
    inventory: ({ guests }) => {
      guests.vm1!.agent = squatted;
    },
  },
];

describe('Preflight', () => {
  let guest: Guest;

  useLab(fastWan);
  const machine = ThirdMachine.use();

  beforeAll(async () => {
    guest = await Guest.start('vm1', { memoryMiB: 128, data: { contents: 'random', filesMiB: 8, freeMiB: 8 } });
  });

  async function preflight(inventory: string, ...more: readonly string[]) {
    const move = ['vm1', '--from', 'hostA', '--to', 'hostB', '--inventory', inventory];
    const { exitCode, stdout } = await machine.vmmig('preflight', ...move, '--json', ...more);
    return { exitCode, report: JSON.parse(stdout) as PreflightReport };
  }

  /** Has some of it go wrong, asks what is found, and puts it right. */
  async function found(wrong: readonly Trouble[], ...more: readonly string[]) {
    const path = await machine.inventoryWith((inventory) => {
      for (const trouble of wrong) trouble.inventory?.(inventory);
    });
    const commands = wrong.flatMap(({ there }) =>
      there === undefined ? [] : [labExec('hostB', [...there], { reject: false, stdin: 'ignore' })],
    );
    await guest.withMonitor(async (qmp) => {
      for (const { qmp: change } of wrong) await change?.(qmp);
    });
    try {
      if (commands.length > 0)
        await expect
          .poll(() => labExec('hostB', ['test', '-S', qmpPath], { reject: false }).then(({ exitCode }) => exitCode))
          .toBe(0);
      const before = await state();
      const outcome = await preflight(path, ...more);
      // Services end a moment after their caller.
      await expect.poll(state, { timeout: 15_000 }).toEqual(before);
      return outcome;
    } finally {
      for (const command of commands) {
        command.kill();
        await command;
      }
      await labExec('hostB', ['rm', '-f', qmpPath]);
      await guest.withMonitor(async (qmp) => {
        for (const { undo } of wrong) await undo?.(qmp);
      });
    }
  }

  /** All that a check could change. */
  async function state() {
    const hosts = await Promise.all(
      hostNames.map(async (host) => {
        const processes = (await processesOn(host)).map(({ command }) => command).sort();
        const files = await labExec(host, ['find', '/run', guestDirectory, '-printf', '%p %y %m %u\n'], {
          reject: false,
        });
        return { host, processes, files: files.stdout.split('\n').filter(isOfVmmig).sort() };
      }),
    );
    const qemu = await guest.withMonitor(async (qmp) => ({
      status: await qmp.execute('query-status'),
      migration: await qmp.execute('query-migrate'),
      capabilities: await qmp.execute('query-migrate-capabilities'),
      parameters: await qmp.execute('query-migrate-parameters'),
    }));
    return { hosts, qemu };
  }

  const codesOf = ({ findings }: PreflightReport) => findings.map(({ severity, code }) => `${severity} ${code}`).sort();

  it('tells everything that is wrong at once, and changes nothing', { timeout: 120_000 }, async () => {
    const counted = await guest.count();
    const { exitCode, report } = await found(troubles);
    expect(exitCode).toBe(5);
    expect(report.result).toBe('refused');
    expect([...new Set(codesOf(report))]).toEqual([...new Set(troubles.flatMap((trouble) => trouble.found))].sort());
    for (const { message, remedy } of report.findings) expect(message && remedy).toBeTruthy();
    await guest.expectToRun(counted);
  });

  it.each(troubles)('tells only what is wrong: $name', { timeout: 120_000 }, async (trouble) => {
    const { report } = await found([trouble]);
    expect([...new Set(codesOf(report))]).toEqual(trouble.found);
  });

  it('of what may become a switch looks for what a switch needs, too', { timeout: 120_000 }, async () => {
    const { exitCode, report } = await found([], '--on-no-converge', 'switch');
    expect([exitCode, report.result, report.findings]).toEqual([0, 'ready', []]);
  });

  it('tells of the guest also where the destination is out of reach', { timeout: 120_000 }, async () => {
    const { exitCode, report } = await found([
      troubles[0]!,
      {
        name: 'unreachable',
        found: [],
        inventory: ({ hosts }) => void Object.assign(hosts.hostB!, { ssh: 'root@127.0.0.1:9', hostname: 'hostB' }),
      },
    ]);
    expect(exitCode).toBe(4);
    expect(report).toMatchObject({ result: 'unreachable', error: { code: 'VMMIG_SSH_UNREACHABLE' } });
    expect(codesOf(report)).toEqual(troubles[0]!.found);
  });
});

/** Not what sshd and the lab itself write. */
function isOfVmmig(line: string): boolean {
  return /vmmig|vm1/.test(line);
}
