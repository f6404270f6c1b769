import { describe, expect, it } from 'vitest';
import type { HostedMigration } from '../../host-service/protocol.js';
import { toldByHosts } from '../../migrate/status.js';
import type { Part } from '../../migrate/survey.js';
import { newCounters } from '../../relay/counters.js';

const ledger = {
  schema: 'vmmig.ledger/1',
  migrationId: '20261122-051604-3fa9c1',
  mode: 'switch',
  phase: 'preparing',
  beganAt: '2026-11-22T05:16:04.000Z',
  changedAt: '2026-11-22T05:16:04.000Z',
  bootId: '00000000-0000-4000-8000-000000000000',
  guest: { name: 'vm1', qmpPath: '/run/vm1.qmp', agentPath: null, process: null },
  service: null,
} as const;
const link = { bytesOnWire: 0, rttMs: 40.04, isConnected: true, reconnects: 1, interruptedAtMs: null } as const;
const faults = { count: 7 } as NonNullable<HostedMigration['destination']>['faults'];

function part(host: string, hosted: object, clockOffsetMs = 0): Part {
  return { host: { name: host } as Part['host'], hosted: hosted as HostedMigration, clockOffsetMs };
}

function source(change: object = {}, service: object | null = {}): Part {
  const state = {
    ...{ commit: 'running', counters: newCounters(), ramEnded: false, storedBytes: 8192, spilledBytes: 0 },
    remaining: { zeroPages: 0, bytesPages: 2, referencePages: 0 },
  };
  const peer = { host: 'hostB', runDir: '/run/vmmig', bootId: null };
  return part('hostA', {
    ledger: { ...ledger, role: 'source', peer },
    ...{ isFromBefore: false, isBusy: false, decision: null, destination: null, teleport: null },
    source: service && { ...link, ...state, ...service },
    ...change,
  });
}

function destination(change: object = {}, service: object | null = {}, clockOffsetMs = 0): Part {
  const state = { commit: 'loading', counters: newCounters(), missingPages: 3, faults, resumedAtMs: null };
  const peer = { host: 'hostA', runDir: '/run/vmmig', bootId: null };
  return part(
    'hostB',
    {
      ledger: { ...ledger, role: 'destination', peer },
      ...{ isFromBefore: false, isBusy: false, decision: null, source: null, teleport: null },
      destination: service && { ...link, ...state, ...service },
      ...change,
    },
    clockOffsetMs,
  );
}

const seen = (pages: number) => ({ counters: { ...newCounters(), pages: { ...newCounters().pages, seen: pages } } });
const running = (resumedAtMs: number | null = 1_000_000) =>
  destination({ decision: 'run' }, { commit: 'running', resumedAtMs });

describe('What is said of a teleport', () => {
  const own = { ...ledger, mode: 'teleport' } as const;
  const of = (part: Part, hosted: object): Part => ({
    ...part,
    hosted: {
      ...part.hosted,
      ...{ ledger: { ...part.hosted.ledger, mode: own.mode }, source: null, destination: null },
      ...hosted,
    } as HostedMigration,
  });
  const sends = (commit: string, hosted: object = {}) => of(source(), { teleport: { commit, ...seen(1) }, ...hosted });
  const receives = (commit: string, hosted: object = {}) => of(destination(), { teleport: { commit }, ...hosted });

  it('comes from both hosts, as of a switch', () => {
    expect(toldByHosts([sends('running'), receives('loading')], null)).toMatchObject({
      ...{ mode: 'teleport', phase: 'precopy', vmLocation: 'source', remaining: null, faults: null, problems: [] },
    });
    const held = sends('held', { decision: 'held' });
    expect(toldByHosts([held, receives('loaded')], null)).toMatchObject({ phase: 'verify', vmLocation: 'unknown' });
    expect(toldByHosts([held, receives('running')], null)).toMatchObject({
      ...{ phase: 'release source', vmLocation: 'destination' },
    });
  });

  it('tells that nobody is at work on it any more', () => {
    const orphaned = sends('', { decision: 'held', teleport: null });
    expect(toldByHosts([orphaned], null).problems).toEqual([expect.stringMatching(/vmmig recover vm1/)]);
  });
});

describe('What is said of a migration', () => {
  it('is where the guest is, and how far it has come', () => {
    expect(toldByHosts([source(), destination()], null)).toMatchObject({
      ...{ vm: 'vm1', from: 'hostA', to: 'hostB', phase: 'prepare destination', vmLocation: 'source', pid: null },
      problems: [],
    });
    expect(toldByHosts([source({}, seen(1)), destination()], null)).toMatchObject({ phase: 'precopy' });
    const held = source({ decision: 'held' }, { commit: 'held' });
    expect(toldByHosts([held, destination()], null)).toMatchObject({ phase: 'switch-over', vmLocation: 'unknown' });
    expect(toldByHosts([held, running()], null)).toMatchObject({ phase: 'pull', vmLocation: 'destination' });
  });

  it('is what the guest still needs, how it fares, and since when, by the clock of who asks', () => {
    const parts = [
      source({}, { commit: 'released' }),
      destination({}, { commit: 'running', resumedAtMs: 61_000 }, 1_000),
    ];
    expect(toldByHosts(parts, null)).toMatchObject({
      remaining: { bytes: 8192, missingPages: 3 },
      faults: { count: 7 },
      link: { isConnected: true, interruptedSince: null, rttMs: 40, reconnects: 1 },
      store: { memoryBytes: 8192, spilledBytes: 0 },
      exposedSince: '1970-01-01T00:01:00.000Z',
    });
  });

  it('is since when the link is lost', () => {
    const lost = source({ decision: 'held' }, { commit: 'released', isConnected: false, interruptedAtMs: 5_000 });
    expect(toldByHosts([lost, running()], null).link).toMatchObject({
      isConnected: false,
      interruptedSince: '1970-01-01T00:00:05.000Z',
    });
  });

  it('is known from one host alone, as far as that one knows', () => {
    expect(toldByHosts([running()], null)).toMatchObject({ from: 'hostA', to: 'hostB', vmLocation: 'destination' });
    expect(toldByHosts([source({ decision: 'held' })], null)).toMatchObject({ to: 'hostB', vmLocation: 'unknown' });
    expect(toldByHosts([destination()], null)).toMatchObject({ vmLocation: 'unknown' });
  });

  it('is what is wrong: a service that has ended, one that does not answer, a host that has restarted', () => {
    const problems = (...parts: Part[]) => toldByHosts(parts, null).problems;
    expect(problems(source({}, null), destination())).toEqual([
      expect.stringMatching(/hostA has ended: run "vmmig rec/),
    ]);
    expect(problems(source({ isBusy: true }, null), running())).toEqual([
      expect.stringMatching(/hostA does not answer/),
    ]);
    expect(problems(source({ decision: 'held' }, null), running())).toEqual([expect.stringMatching(/is gone with it/)]);
    const inFile = source({ decision: 'held', isReplaceable: true }, null);
    expect(problems(inFile, running())).toEqual([expect.stringMatching(/hostA has ended: run "vmmig rec/)]);
    const restarted = destination({ isFromBefore: true, decision: 'run' }, null);
    expect(problems(source(), restarted)).toEqual([expect.stringMatching(/hostB has restarted/)]);
    expect(toldByHosts([source({ decision: 'held' }), restarted], null).vmLocation).toBe('unknown');
  });

  it('is that memory was lost, where a service waits for the guest to be ended', () => {
    const lost = { ...destination().hosted.ledger, phase: 'lost' };
    const { vmLocation, problems } = toldByHosts([destination({ ledger: lost, decision: 'run' }, null)], null);
    expect(vmLocation).toBe('destination');
    expect(problems).toEqual(['part of the memory of vm1 is lost: end it on hostB and start it again from its disk']);
  });
});
