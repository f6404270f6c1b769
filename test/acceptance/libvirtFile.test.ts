/**
 * A domain whose memory is kept in a file is switched from there, and its QEMU leaves that out of its stream; whatever
 * becomes of the switch, it leaves nothing out of what libvirt does next.
 */
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { healWan, labExec, setWan, virsh } from '../../lab/index.js';
import { domainsOn, expectQuiet, expectToRunOnce, killDaemon, startDaemon, unsafe } from './domains.js';
import { fastWan, Guest, kill, type Move, processes, processOn, useLab } from './rig.js';

const noErrors = /^passes \d+ errors 0 /;
const askCapabilities = JSON.stringify({ execute: 'query-migrate-capabilities' });
const isOff = '{"state":false,"capability":"x-ignore-shared"}';
const isOn = '{"state":true,"capability":"x-ignore-shared"}';

describe('A domain in a shared memory file', () => {
  let guest: Guest;
  let counted: number;

  useLab({ ...fastWan, libvirt: '9.0' });

  beforeAll(async () => {
    guest = await Guest.start('vm1', {
      memoryMiB: 128,
      libvirt: true,
      sharedMemory: true,
      data: { contents: 'random', filesMiB: 32, freeMiB: 16 },
    });
    await guest.run('fill-cache; pattern start 8 4000');
  });

  beforeEach(async () => {
    counted = await guest.count();
  });

  afterEach(async () => {
    await healWan();
    await setWan(fastWan);
  });

  const capabilities = async () => (await virsh(guest.host, ['qemu-monitor-command', 'vm1', askCapabilities])).trim();

  async function expectIntact(): Promise<void> {
    await expectToRunOnce(guest, counted);
    expect(await guest.run('pattern status')).toMatch(noErrors);
    expect(await capabilities()).toContain(isOff);
  }

  it('is switched there and back without its memory going through QEMU’s stream', { timeout: 180_000 }, async () => {
    for (const more of [['--persistent', '--undefine-source'], []]) {
      const { report } = await guest.switch(unsafe, ...more);
      expect(report).toMatchObject({ verified: true, capture: 'memory file' });
      expect(report.pages.teleported).toBeGreaterThan(7_000);
      await expectIntact();
    }
    expect(await virsh(guest.host, ['domstate', '--reason', 'vm1'])).toBe('running (migrated)');
  });

  /** Starts a switch, which goes no further than to the destination's being ready: the guest is not to stop yet. */
  async function beginReady(): Promise<Move> {
    const move = guest.beginSwitch(unsafe, '--after', '100s');
    await move.until((event) => event.type === 'phase' && event.name === 'precopy' && event.state === 'begin');
    expect(await capabilities()).toContain(isOn);
    return move;
  }

  async function expectStayed(move: Move): Promise<void> {
    const { exitCode, report, stderr } = await move.ended;
    expect(report, stderr).toMatchObject({ vmLocation: 'source' });
    expect(exitCode).not.toBe(0);
    await expect.poll(capabilities, { timeout: 30_000 }).toContain(isOff);
    await expectIntact();
  }

  it('stays whole after Ctrl-C', { timeout: 120_000 }, async () => {
    const move = await beginReady();
    move.signal('SIGINT');
    await expectStayed(move);
  });

  it('stays whole when the service on its host is killed', { timeout: 120_000 }, async () => {
    const move = await beginReady();
    await kill(guest.host, await processOn(guest.host, processes.service));
    await expectStayed(move);
  });

  it('stays whole when the service on the destination is killed', { timeout: 120_000 }, async () => {
    const move = await beginReady();
    await kill(guest.otherHost, await processOn(guest.otherHost, processes.service));
    await expectStayed(move);
  });

  it('stays whole when the QEMU that was started for it is killed, and need not wait to be told', async () => {
    const move = await beginReady();
    await kill(guest.otherHost, await processOn(guest.otherHost, processes.qemu));
    await expectStayed(move);
  });

  it.each(['host', 'otherHost'] as const)(
    'stays whole when libvirt is restarted on its %s',
    {
      timeout: 120_000,
    },
    async (which) => {
      const move = await beginReady();
      await killDaemon(guest[which]);
      await startDaemon(guest[which]);
      await expectStayed(move);
    },
  );

  it('stays whole when the command is killed', { timeout: 120_000 }, async () => {
    const move = await beginReady();
    move.signal('SIGKILL');
    await move.ended;
    await expect.poll(capabilities, { timeout: 30_000 }).toContain(isOff);
    await expectIntact();
  });

  it('is migrated by libvirt as before', { timeout: 120_000 }, async () => {
    const { host, otherHost } = guest;
    await labExec(host, ['virsh', 'migrate', '--live', unsafe, 'vm1', `qemu+ssh://${otherHost}/system`]);
    guest.host = otherHost;
    await expectIntact();
    expect((await domainsOn(host)).vm1 ?? 'shut off').toBe('shut off');
    await expectQuiet();
  });

  it('is said to have ended as soon as it has', async () => {
    const move = await beginReady();
    await kill(guest.host, await processOn(guest.host, processes.qemu));
    const { exitCode, report, stderr } = await move.ended;
    expect(report?.error, stderr).toMatchObject({ code: 'VMMIG_GUEST_ENDED' });
    expect(exitCode).toBe(7);
    await expectQuiet();
  });
});
