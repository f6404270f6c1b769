/**
 * The source's service is killed while the guest at the destination still needs memory, which the source has in a shared
 * file: another one takes its place.
 */
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { labExec, setWan } from '../../lab/index.js';
import { reportDocument } from './reportSchema.js';
import { expectNothingLeft, fastWan, Guest, isFull, kill, type Move, processes, processOn, useLab } from './rig.js';

/** Without an agent the page cache is memory as any other, and takes this link some seconds. */
const slowWan = { rttMs: 20, rateBps: 40e6 } as const;

describe("A source's service that dies during the pull, of a guest in a shared memory file,", () => {
  let guest: Guest;
  let counted: number;

  useLab(fastWan);

  beforeAll(async () => {
    guest = await Guest.start('vm1', {
      memoryMiB: 256,
      sharedMemory: true,
      data: { contents: 'random', filesMiB: 40, freeMiB: 16 },
    });
    await guest.run('fill-cache');
    await guest.run('pattern start 16');
  });

  beforeEach(async () => {
    counted = await guest.count();
    await setWan(slowWan);
  });

  async function beginPull(): Promise<Move> {
    const move = guest.beginSwitch('--no-agent', '--no-compress');
    await move.untilPull();
    await move.until(({ type }) => type === 'sample');
    return move;
  }

  async function killService(host: typeof guest.host): Promise<void> {
    await kill(host, await processOn(host, processes.service));
  }

  async function expectWhole(): Promise<void> {
    guest.host = guest.otherHost;
    await guest.expectToRun(counted);
    const passes = await passesWithoutErrors();
    await expect.poll(passesWithoutErrors, { timeout: 60_000 }).toBeGreaterThan(passes + 1);
    const { stdout } = await labExec(guest.otherHost, ['stat', '-c', '%b', '/dev/shm/vm1.ram']);
    expect(stdout, 'blocks that the file still takes').toBe('0');
    await expectNothingLeft([guest]);
  }

  async function passesWithoutErrors(): Promise<number> {
    const [passes, errors] = ((await guest.run('pattern status')).match(/\d+/g) ?? []).map(Number);
    expect(errors).toBe(0);
    return passes!;
  }

  async function expectMoved(move: Move): Promise<void> {
    const { exitCode, report, stderr } = await move.ended;
    expect(exitCode, stderr).toBe(0);
    // Nobody can compare what the one that died had sent.
    expect(report).toMatchObject({ result: 'moved', vmLocation: 'destination', error: null, verified: null });
    expect(reportDocument.parse(report)).toEqual(report);
    await expectWhole();
  }

  it('is replaced by the command, twice if need be', { timeout: 300_000 }, async () => {
    const move = await beginPull();
    const { host } = guest;
    for (const attempt of [1, 2]) {
      await killService(host);
      const isNotice = (at: number) => move.events.slice(0, at + 1).filter(isTakenOver).length === attempt;
      await move.until((event) => isNotice(move.events.indexOf(event)));
    }
    await setWan(fastWan);
    await expectMoved(move);
  });

  it.skipIf(!isFull)('is replaced by `vmmig recover` when the command is gone, too', { timeout: 300_000 }, async () => {
    const move = await beginPull();
    await kill(guest.host, await processOn(guest.host, processes.commandLine));
    await move.ended;
    await killService(guest.host);
    const status = await labExec(guest.otherHost, ['vmmig', 'status', 'vm1']);
    expect(status.stdout).toMatch(/recover/);
    await setWan(fastWan);
    const recovered = await labExec(guest.host, ['vmmig', 'recover', 'vm1', '--json'], { reject: false });
    expect(recovered.exitCode, recovered.stderr).toBe(0);
    expect(JSON.parse(recovered.stdout)).toMatchObject({ result: 'moved', vmLocation: 'destination', verified: null });
    await expectWhole();
  });

  it.skipIf(!isFull)("may die with the destination's", { timeout: 300_000 }, async () => {
    const move = await beginPull();
    await Promise.all([killService(guest.host), killService(guest.otherHost)]);
    await move.until(isTakenOver);
    await setWan(fastWan);
    await expectMoved(move);
  });
});

function isTakenOver(event: Move['events'][number]): boolean {
  return event.type === 'notice' && event.code === 'VMMIG_TAKEN_OVER';
}
