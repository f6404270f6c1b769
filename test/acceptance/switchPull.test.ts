/** The guest runs on the destination, part of its memory is on the source, and something happens. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { cutWan, healWan, hostNames, labExec, setWan } from '../../lab/index.js';
import { reportDocument } from './reportSchema.js';
import { expectNothingLeft, fastWan, Guest, isFull, kill, type Move, processes, processOn, useLab } from './rig.js';

/** So slow that the pull lasts for as long as it takes to break something. */
const slowWan = { rttMs: 10, rateBps: 20e6 } as const;

describe('While the memory of a guest that was switched is pulled,', () => {
  let guest: Guest;
  let counted: number;

  useLab(fastWan);

  beforeAll(async () => {
    guest = await Guest.start('vm1', { memoryMiB: 192, data: { contents: 'random', filesMiB: 48, freeMiB: 16 } });
    await guest.run('fill-cache; pattern start 8 1000');
  });

  beforeEach(async () => {
    counted = await guest.count();
  });

  afterEach(() => healWan());

  /** Starts a switch in which the page cache crosses a slow link. From here on the guest is on the other host. */
  async function beginPull(...more: readonly string[]): Promise<Move> {
    await setWan(slowWan);
    const move = guest.beginSwitch('--no-agent', ...more);
    await move.untilPull();
    guest.host = guest.otherHost;
    return move;
  }

  async function expectIntact(): Promise<void> {
    await guest.expectToRun(counted);
    expect(await guest.run('pattern status')).toMatch(/^passes \d+ errors 0 /);
    await expectNothingLeft([guest], { timeoutMs: 30_000 });
  }

  async function expectMoved(move: Move): Promise<void> {
    const { exitCode, report, stderr } = await move.ended;
    expect(report, stderr).toMatchObject({ result: 'moved', vmLocation: 'destination', error: null, verified: true });
    expect(exitCode).toBe(0);
    expect(reportDocument.parse(report)).toEqual(report);
    expect(report.switchoverMs).toBeLessThan(report.releasedMs);
    expect(report.faults!.waiting).toBe(0);
    await expectIntact();
  }

  it.each([['1 s', 1_000, 0], ['10 s', 10_000, 1], ...(isFull ? [['60 s', 60_000, 1] as const] : [])] as const)(
    'a link that is cut for %s makes it wait, and no more',
    { timeout: 180_000 },
    async (_, cutMs, least) => {
      const move = await beginPull();
      await cutWan();
      await sleep(cutMs);
      await healWan();
      await setWan(fastWan);
      await expectMoved(move);
      expect((await move.ended).report.link.reconnects).toBeGreaterThanOrEqual(least);
    },
  );

  it('Ctrl-C and `vmmig cancel` are refused', { timeout: 60_000 }, async () => {
    const source = guest.host;
    const move = await beginPull();
    move.signal('SIGINT');
    const cancelling = labExec(source, ['vmmig', 'cancel', 'vm1'], { reject: false });
    await sleep(500);
    await setWan(fastWan);
    await expectMoved(move);
    const { exitCode, stderr: said } = await cancelling;
    expect([exitCode, said]).toEqual([0, expect.stringMatching(/Too late to cancel/)]);
  });

  it('a command that is killed is not needed', { timeout: 60_000 }, async () => {
    const source = guest.host;
    const move = await beginPull();
    await kill(source, await processOn(source, processes.commandLine));
    await move.ended;
    await sleep(1_000);
    await guest.expectToRun(counted);
    await processOn(source, processes.service);
    await setWan(fastWan);
    await expectIntact();
  });

  it('a command that is left says so, and is not needed either', { timeout: 60_000 }, async () => {
    const source = guest.host;
    const move = await beginPull();
    move.signal('SIGINT');
    await sleep(200);
    move.signal('SIGINT');
    const { exitCode, report } = await move.ended;
    expect(exitCode).toBe(6);
    expect(reportDocument.parse(report)).toMatchObject({
      result: 'interrupted',
      vmLocation: 'destination',
      error: { code: 'VMMIG_LEFT', phase: 'pull' },
    });
    await sleep(4_000);
    for (const host of [source, guest.host]) await processOn(host, processes.service);
    await setWan(fastWan);
    await expectIntact();
  });

  it('the session to the destination may be lost', { timeout: 60_000 }, async () => {
    const move = await beginPull();
    const sessions = await labExec(guest.host, ['pgrep', '-f', '^sshd: root@notty']);
    for (const pid of sessions.stdout.split('\n')) await kill(guest.host, Number(pid));
    await sleep(3_000);
    await setWan(fastWan);
    await expectMoved(move);
  });

  it.skipIf(!isFull)(
    'a link that is cut for longer than the relays look for each other loses nothing',
    {
      timeout: 90_000,
    },
    async () => {
      const source = guest.host;
      const move = await beginPull('--reconnect-timeout', '3s');
      await cutWan();
      const { exitCode, report } = await move.ended;
      await healWan();
      await setWan(fastWan);
      expect(exitCode).toBe(6);
      expect(reportDocument.parse(report)).toMatchObject({
        result: 'interrupted',
        vmLocation: 'destination',
        verified: null,
      });
      expect(report.error).toMatchObject({
        code: 'VMMIG_HOST_SILENT',
        message: expect.stringMatching(/run "vmmig recover vm1"$/),
      });
      const recovered = await labExec(source, ['vmmig', 'recover', 'vm1'], { reject: false });
      expect(recovered.exitCode, recovered.stderr).toBe(0);
      await expectIntact();
    },
  );

  it('it is lost with the service on the source, and that is said', { timeout: 60_000 }, async () => {
    const source = guest.host;
    const move = await beginPull();
    await kill(source, await processOn(source, processes.service));
    const { exitCode, report } = await move.ended;
    expect(exitCode).toBe(6);
    expect(reportDocument.parse(report)).toMatchObject({
      result: 'interrupted',
      vmLocation: 'destination',
      verified: null,
      error: { code: 'VMMIG_MEMORY_LOST', phase: 'pull', retryable: false },
    });
    const [, pages] = /: ([\d,]+) pages \([\d.]+ MiB\) were nowhere else and are lost\./.exec(report.error!.message)!;
    expect(Number(pages!.replaceAll(',', ''))).toBeGreaterThan(1000);
    expect(report.error!.message).toMatch(/End it there and start it again from its disk$/);
  });
});

describe.runIf(isFull)('While the memory of a guest that was switched is pulled, and both services die,', () => {
  useLab(fastWan);

  it('it is lost, that is said as often as it is asked, and nothing is left of it once it has been ended', {
    timeout: 120_000,
  }, async () => {
    const guest = await Guest.start('vm1', { memoryMiB: 192, data: { contents: 'random', filesMiB: 48, freeMiB: 16 } });
    await guest.run('fill-cache');
    await setWan(slowWan);
    const move = guest.beginSwitch('--no-agent');
    await move.untilPull();
    for (const host of hostNames) await kill(host, await processOn(host, processes.service));
    const { exitCode, report, stderr } = await move.ended;
    expect(exitCode, stderr).toBe(6);
    expect(report).toMatchObject({ vmLocation: 'destination', error: { code: 'VMMIG_MEMORY_LOST' } });
    await setWan(fastWan);
    const recovered = await labExec(guest.host, ['vmmig', 'recover', 'vm1', '--json'], { reject: false });
    expect(recovered.exitCode, recovered.stderr).toBe(6);
    expect(JSON.parse(recovered.stdout)).toMatchObject({ error: { code: 'VMMIG_MEMORY_LOST' } });
    await processOn(guest.otherHost, processes.service);
    await kill(guest.otherHost, await processOn(guest.otherHost, processes.qemu));
    await expectNothingLeft([]);
  });
});
