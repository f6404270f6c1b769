/** What may happen to a migration before its commit point, and how it then ends; alike for both modes. */
import { expect } from 'vitest';
import { labExec } from '../../lab/index.js';
import { type Guest, kill, type Move, processes, processOn } from './rig.js';

export interface Strike {
  readonly name: string;
  readonly exitCode: number;
  readonly result: 'failed' | 'cancelled';
  readonly code: RegExp;
  /** The command is started with these. */
  readonly options?: readonly string[];
  /** Or much like another: shown to both modes only when there is time. */
  readonly isSlow?: true;
  readonly strike: (move: Move, guest: Guest) => Promise<unknown>;
}

export const strikes: readonly Strike[] = [
  {
    name: 'Ctrl-C',
    exitCode: 3,
    result: 'cancelled',
    code: /^VMMIG_CANCELLED$/,
    strike: async (move) => move.signal('SIGINT'),
  },
  {
    name: 'SIGTERM',
    isSlow: true,
    exitCode: 3,
    result: 'cancelled',
    code: /^VMMIG_CANCELLED$/,
    strike: async (move) => move.signal('SIGTERM'),
  },
  {
    name: '`vmmig cancel`',
    exitCode: 3,
    result: 'cancelled',
    code: /^VMMIG_CANCELLED$/,
    strike: async (move, { host }) => {
      const { exitCode, stdout } = await labExec(host, ['vmmig', 'cancel', 'vm1', '--json'], { reject: false });
      expect(exitCode).toBe(3);
      expect(JSON.parse(stdout)).toEqual((await move.ended).report);
    },
  },
  {
    name: 'the time limit',
    isSlow: true,
    exitCode: 1,
    result: 'failed',
    code: /^VMMIG_TIMEOUT$/,
    options: ['--timeout', '6s'],
    strike: async () => {},
  },
  {
    name: "a kill of the source host's service, and with it of the source relay",
    exitCode: 1,
    result: 'failed',
    code: /^VMMIG_(HOST_SERVICE_ENDED|LINK_LOST|RELAY_QEMU)$/,
    strike: async (_, { host }) => kill(host, await processOn(host, processes.service)),
  },
  {
    name: "a kill of the destination host's service, and with it of the destination relay",
    exitCode: 1,
    result: 'failed',
    code: /^VMMIG_(HOST_SERVICE_ENDED|LINK_LOST)$/,
    strike: async (_, { otherHost }) => kill(otherHost, await processOn(otherHost, processes.service)),
  },
  {
    name: "a kill of the destination's QEMU",
    exitCode: 1,
    result: 'failed',
    code: /^VMMIG_(RELAY_QEMU|DESTINATION_LOAD|QMP_INTERRUPTED)$/,
    strike: async (_, { otherHost }) => kill(otherHost, await processOn(otherHost, processes.qemu)),
  },
];
