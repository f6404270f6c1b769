/** What `recover` makes of two hosts' answers. */
import { describe, expect, it } from 'vitest';
import type { VmmigError } from '../../migrate/errors.js';
import type { Recovery } from '../../migrate/recovery.js';
import { settle } from '../../migrate/settle.js';

interface Finished {
  readonly result: string;
  readonly vmLocation: string;
  readonly error: VmmigError;
}

type Host = Readonly<Record<string, object | Error>>;

/** Hosts that answer so to each method, and a recorder that hands on what it is told. */
function recoveryOf(source: Host, destination: Host, parts = [ledger('source'), ledger('destination')]) {
  const asked: string[] = [];
  const side = (host: { name: string }, answers: Host) => ({
    host,
    rpc: {
      async request(method: string, params: { event?: string }) {
        const what = params.event === undefined ? method : `${method} ${params.event}`;
        asked.push(what);
        const answer = answers[what] ?? answers[method] ?? new Error(`${method} is not expected`);
        if (answer instanceof Error) throw answer;
        return answer;
      },
    },
    leave: async () => {},
  });
  const from = { name: 'hostA', runDir: '/run/a' };
  const to = { name: 'hostB', runDir: '/run/b' };
  const error = { code: 'VMMIG_QMP_INTERRUPTED', message: 'QEMU hung up', phase: 'verify' };
  const recovery = {
    unfinished: { id: 'x', vm: 'vm1', mode: 'teleport', from, to, parts, journal: [] },
    guest: { name: 'vm1', qmpPath: '/run/vm1.qmp', agentPath: null },
    sides: { source: side(from, source), destination: side(to, destination) },
    before: { error },
    recorder: {
      during: (_: string, work: () => Promise<unknown>) => work(),
      finish: async (result: string, vmLocation: string, error: VmmigError) => ({ result, vmLocation, error }),
    },
  };
  return { recovery: recovery as unknown as Recovery, asked };
}

function ledger(role: 'source' | 'destination') {
  const guest = { name: 'vm1', qmpPath: '/run/vm1.qmp', agentPath: null, process: null };
  const name = role === 'source' ? 'hostA' : 'hostB';
  return { host: { name }, hosted: { ledger: { role, guest, peer: { bootId: null } } } };
}

async function settled(...hosts: Parameters<typeof recoveryOf>): Promise<Finished & { asked: string[] }> {
  const { recovery, asked } = recoveryOf(...hosts);
  return { ...((await settle(recovery)) as unknown as Finished), asked };
}

const held = { 'source.post': { state: 'held', guestHasEnded: false } };
const doubtful = (more = {}) => ({
  'destination.ask': { state: 'doubtful', guestHasEnded: true, remembers: true, ...more },
  'destination.conclude': {},
});

describe('A migration whose hosts both answer, and do not know', () => {
  it('ends with a code of its own, and with what each has said', async () => {
    const { result, vmLocation, error, asked } = await settled(held, doubtful());
    expect({ result, vmLocation }).toEqual({ result: 'unknown', vmLocation: 'unknown' });
    expect(error).toMatchObject({ code: 'VMMIG_INCONCLUSIVE', vmLocation: 'unknown', retryable: false });
    expect(error.message).toMatch(
      /^hostA answers that vm1 was to go.*; hostB answers that vm1 was to run there, and its QEMU has/,
    );
    // Somebody may ask again.
    expect(asked).toEqual(['source.post abandon', 'destination.ask']);
  });

  it('is told of a restart', async () => {
    const { error } = await settled(held, doubtful({ remembers: false }));
    expect(error.message).toMatch(/hostB answers that it keeps nothing from then any more/);
  });

  it('is over when no QEMU is left on either, and nothing of it is kept', async () => {
    const source = { 'source.post': { state: 'released', guestHasEnded: false }, 'source.reconnect': {} };
    const { result, error, asked } = await settled(source, doubtful());
    expect(result).toBe('unknown');
    expect(error).toMatchObject({ code: 'VMMIG_GUEST_ENDED', vmLocation: 'unknown' });
    expect(error.message).toMatch(/hostA and on hostB have ended.*start it again from its disk/);
    expect(asked).toContain('destination.conclude');
    const unsure = await settled(source, doubtful({ guestHasEnded: false }));
    expect(unsure.error.code).toBe('VMMIG_INCONCLUSIVE');
    expect(unsure.asked).not.toContain('destination.conclude');
  });

  it('is over when the guest runs on the source again, whoever let it', async () => {
    const resumed = { 'source.post': { state: 'resumed', guestHasEnded: false } };
    const { result, vmLocation, error, asked } = await settled(resumed, doubtful());
    expect({ result, vmLocation, code: error.code }).toEqual({
      result: 'failed',
      vmLocation: 'source',
      code: 'VMMIG_QMP_INTERRUPTED',
    });
    expect(asked).toContain('destination.conclude');
    expect(asked).not.toContain('source.reconnect');
  });
});

describe('A migration of which a host cannot be asked', () => {
  it('says which, and why', async () => {
    const { result, error } = await settled(held, { 'destination.ask': new Error('hostB: no route') });
    expect(result).toBe('unknown');
    expect(error).toMatchObject({ code: 'VMMIG_UNRESOLVED', retryable: true });
    expect(error.message).toMatch(/^hostA answers .* paused there; hostB could not be asked: /);
  });
});

describe('A migration of which nothing is noted', () => {
  it('is judged by the guest, and says what was found of that', async () => {
    const probed = (state: string | null) => ({ 'guest.probe': { state } });
    const moved = await settled(probed('postmigrate'), probed('running'), []);
    expect(moved).toMatchObject({ result: 'moved', vmLocation: 'destination', error: null });
    const unknown = await settled(probed('paused'), probed(null), []);
    expect(unknown).toMatchObject({ result: 'unknown', error: { code: 'VMMIG_INCONCLUSIVE' } });
    const silent = await settled(probed('running'), { 'guest.probe': new Error('no route') }, []);
    expect(silent).toMatchObject({ result: 'unknown', error: { code: 'VMMIG_UNRESOLVED' } });
  });
});
