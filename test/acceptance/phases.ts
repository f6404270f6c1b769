/** How a migration comes to each phase that the columns of docs/failures.md name, in the lab. */
import { type HostName, setWan } from '../../lab/index.js';
import type { PhaseName } from '../../migrate/index.js';
import { unsafe } from './domains.js';
import type { TableMode } from './failureTable.js';
import { find, untilDecided } from './hostProcesses.js';
import { fastWan, type Guest, type Move, processes } from './rig.js';

/** So slow that copying lasts for as long as it takes to break something. */
const slowWan = { rttMs: 10, rateBps: 20e6 } as const;
/** What was said last takes a third of a second to arrive. */
const farWan = { rttMs: 700, rateBps: 1e9 } as const;
/** Each step of preflight takes a moment. */
const distantWan = { rttMs: 300, rateBps: 1e9 } as const;

/** Starts a move, and resolves in that phase. @param more - options of the command */
export type Begin = (guest: Guest, more: readonly string[]) => Promise<Move>;

const untilPhase = async (move: Move, name: PhaseName) =>
  await move.until((event) => event.type === 'phase' && event.name === name && event.state === 'begin');

const inPhase =
  (verb: 'begin' | 'beginSwitch', name: PhaseName): Begin =>
  async (guest, more) => {
    await setWan(distantWan);
    const move = guest[verb](...more);
    await untilPhase(move, name);
    return move;
  };

/** Resolves when so much of the first pass is over. */
const untilCopied = async (move: Move, share: number) =>
  await move.until((event) => {
    if (event.type !== 'sample') return false;
    const { zero, sent } = event.pages;
    return event.totalPages > 0 && zero + sent > event.totalPages * share;
  });

/** Before the first pass is over the way becomes so long that what is said near the end takes a while to arrive. */
const nearTheEnd =
  (until: (move: Move, guest: Guest) => Promise<unknown>): Begin =>
  async (guest, more) => {
    await setWan(fastWan);
    const move = guest.begin(...more);
    await untilCopied(move, 0.5);
    await setWan(farWan);
    const tooLate = move.ended.then(() => Promise.reject(new Error('it was over before it could be struck')));
    await Promise.race([until(move, guest), tooLate]);
    return move;
  };

const teleport: Readonly<Record<string, Begin>> = {
  preflight: inPhase('begin', 'preflight'),
  prepare: inPhase('begin', 'prepare destination'),
  'first pass': async (guest, more) => {
    await setWan(slowWan);
    const move = guest.begin(...more);
    await move.untilPagesMove();
    return move;
  },
  'later pass': async (guest, more) => {
    await setWan(fastWan);
    await guest.run('pattern start 32 1000');
    const move = guest.begin('--max-downtime', '60ms', '--on-no-converge', 'stop-and-copy', ...more);
    await untilCopied(move, 0.95);
    // What the guest has written by now takes it some seconds, and is written again meanwhile.
    await setWan(slowWan);
    await move.until((event) => event.type === 'sample' && event.dirtyBytesPerSecond !== null);
    return move;
  },
  stopped: nearTheEnd((move) => untilPhase(move, 'restore')),
  held: nearTheEnd((_, { host }) => untilDecided(host, 'source')),
  run: nearTheEnd(async (_, { host, otherHost }) => {
    await untilDecided(host, 'source');
    // It cannot answer what it is asked.
    signalQemu(otherHost, 'SIGSTOP');
    await untilDecided(otherHost, 'destination');
  }),
  after: nearTheEnd((move) => untilPhase(move, 'release source')),
};

const switchOver: Readonly<Record<string, Begin>> = {
  preflight: inPhase('beginSwitch', 'preflight'),
  prepare: inPhase('beginSwitch', 'prepare destination'),
  // QEMU may stop the guest at any time, and comes to it as late as a slow link lets a small page store empty.
  'first pass': async (guest, more) => {
    await setWan(slowWan);
    const move = guest.beginSwitch('--page-store-limit', '32MiB', ...more);
    await untilPhase(move, 'switch-over');
    await move.untilPagesMove();
    return move;
  },
  'hand-over': async (guest, more) => {
    await setWan(farWan);
    const move = guest.beginSwitch(...more);
    await untilDecided(guest.host, 'source');
    return move;
  },
  pull: async (guest, more) => {
    await setWan(slowWan);
    const move = guest.beginSwitch(...more);
    await move.untilPull();
    return move;
  },
};

/** As long as the guest may not stop, what is sent of the file is sent ahead. */
const ahead: Begin = async (guest, more) => {
  await setWan(slowWan);
  const move = guest.beginSwitch('--after', '30s', ...more);
  await move.untilPagesMove();
  return move;
};

const ofDomain =
  (begin: Begin): Begin =>
  async (guest, more) =>
    await begin(guest, [unsafe, ...more]);

export const phases: Readonly<Record<TableMode, Readonly<Record<string, Begin>>>> = {
  teleport,
  switch: switchOver,
  switchFile: { ahead, 'hand-over': switchOver['hand-over']!, pull: switchOver.pull! },
  domain: {
    'teleport, first pass': ofDomain(teleport['first pass']!),
    'teleport, held': ofDomain(teleport.held!),
    'switch, first pass': ofDomain(switchOver['first pass']!),
    'switch, pull': ofDomain(switchOver.pull!),
  },
  domainFile: {
    ahead: ofDomain(ahead),
    'hand-over': ofDomain(switchOver['hand-over']!),
    pull: ofDomain(switchOver.pull!),
  },
};

export function signalQemu(host: HostName, signal: NodeJS.Signals): void {
  for (const pid of find(host, processes.qemu)) process.kill(pid, signal);
}
