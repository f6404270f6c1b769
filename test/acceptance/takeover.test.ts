/** The destination's service is killed while the guest there still needs memory: another one takes its place. */
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { cutWan, type HostName, healWan, labExec, setWan } from '../../lab/index.js';
import { reportDocument } from './reportSchema.js';
import { expectNothingLeft, fastWan, Guest, kill, type Move, processes, processOn, useLab } from './rig.js';

/** Without an agent the page cache is memory as any other, and takes this link some seconds. */
const slowWan = { rttMs: 20, rateBps: 40e6 } as const;
const patternMiB = 16;
/** Of a session whose client is gone: should it not have ended at once, TCP tries again when as long as the cut is over. */
const leftAfterCutMs = 120_000;

describe("A destination's service that dies during the pull", () => {
  let guest: Guest;

  useLab(fastWan);

  beforeAll(async () => {
    guest = await Guest.start('vm1', { memoryMiB: 256, data: { contents: 'random', filesMiB: 40, freeMiB: 16 } });
    await guest.run('fill-cache');
    await guest.run(`pattern start ${patternMiB}`);
  });

  beforeEach(async () => {
    await setWan(slowWan);
  });

  async function beginPull(...more: readonly string[]): Promise<Move> {
    const move = guest.beginSwitch('--no-agent', '--no-compress', ...more);
    await move.untilPull();
    return move;
  }

  async function killThere(move: Move): Promise<void> {
    await move.until(({ type }) => type === 'sample');
    await kill(guest.otherHost, await processOn(guest.otherHost, processes.service));
  }

  async function expectWhole(counted: number, leftWithin: { timeoutMs?: number } = {}): Promise<void> {
    await guest.expectToRun(counted);
    const [passes] = await patternStatus();
    await expect.poll(async () => (await patternStatus())[0], { timeout: 20_000 }).toBeGreaterThan(passes! + 1);
    expect((await patternStatus())[1]).toBe(0);
    await expectNothingLeft([guest], leftWithin);
  }

  /** Passes and errors. */
  async function patternStatus(): Promise<number[]> {
    return ((await guest.run('pattern status')).match(/\d+/g) ?? []).map(Number);
  }

  it('is replaced by the command, twice if need be', { timeout: 120_000 }, async () => {
    const counted = await guest.count();
    const move = await beginPull();
    await killThere(move);
    await move.until((event) => event.type === 'notice' && event.code === 'VMMIG_TAKEN_OVER');
    await killThere(move);
    await setWan(fastWan);
    const { exitCode, report, stderr } = await move.ended;
    expect(exitCode, stderr).toBe(0);
    // Nobody can compare what the one that died had placed.
    expect(report).toMatchObject({ result: 'moved', vmLocation: 'destination', error: null, verified: null });
    expect(reportDocument.parse(report)).toEqual(report);
    guest.host = guest.otherHost;
    await expectWhole(counted);
  });

  it('ends when the network is gone for too long, and another goes on later', { timeout: 300_000 }, async () => {
    const counted = await guest.count();
    const move = await beginPull('--reconnect-timeout', '2s');
    await move.until(({ type }) => type === 'sample');
    await cutWan();
    try {
      const { exitCode, report, stderr } = await move.ended;
      expect(exitCode, stderr).toBe(6);
      expect(report).toMatchObject({ result: 'interrupted', vmLocation: 'destination' });
    } finally {
      await healWan();
    }
    await setWan(fastWan);
    const recovered = await labExec(guest.host, ['vmmig', 'recover', 'vm1', '--json'], { reject: false });
    expect(recovered.exitCode, recovered.stderr).toBe(0);
    guest.host = guest.otherHost;
    await endDeadSessions(guest.host, guest.otherHost);
    await expectWhole(counted, { timeoutMs: leftAfterCutMs });
  });

  it('is replaced by `vmmig recover` when the command is gone, too', { timeout: 120_000 }, async () => {
    const counted = await guest.count();
    const move = await beginPull();
    await kill(guest.host, await processOn(guest.host, processes.commandLine));
    await move.ended;
    await kill(guest.otherHost, await processOn(guest.otherHost, processes.service));
    await setWan(fastWan);
    const recovered = await labExec(guest.host, ['vmmig', 'recover', 'vm1', '--json'], { reject: false });
    expect(recovered.exitCode, recovered.stderr).toBe(0);
    expect(JSON.parse(recovered.stdout)).toMatchObject({ result: 'moved', vmLocation: 'destination', verified: null });
    guest.host = guest.otherHost;
    await expectWhole(counted);
  });
});

/** Ends the sessions of a host's sshd whose client is gone: that they are would be found out by TCP's next try, much later. */
async function endDeadSessions(host: HostName, client: HostName): Promise<void> {
  const ssh = async (on: HostName, side: 'sport' | 'dport') =>
    (await labExec(on, ['ss', '-Htnp', 'state', 'established', side, '=', ':22'])).stdout.split('\n');
  const alive = new Set((await ssh(client, 'dport')).map((line) => line.split(/\s+/)[2]));
  for (const line of await ssh(host, 'sport'))
    if (!alive.has(line.split(/\s+/)[3]))
      for (const [, pid] of line.matchAll(/pid=(\d+)/g)) await kill(host, Number(pid));
}
