/** Errors of the migration itself, and of the lab. */
import type { ErrorArea } from './area.js';

export const migration = {
  title: 'The migration',
  whereIsTheGuest: 'On the source, running as before.',
  codes: {
    VMMIG_ALREADY_MIGRATING: {
      summary: 'The guest is being moved from this machine already.',
      whereIsTheGuest: 'On its way: the other migration decides.',
      nextStep: 'Wait for it, or run `vmmig cancel GUEST`.',
    },
    VMMIG_CANCELLED: {
      summary: 'The migration was cancelled, by Ctrl-C, by a signal or by `vmmig cancel`.',
      nextStep: 'Nothing: both hosts are as they were.',
    },
    VMMIG_TIMEOUT: {
      summary: 'The migration did not get to the commit point within `--timeout`.',
      nextStep: 'Give it more time or bandwidth; `vmmig show GUEST` says which phase took long.',
    },
    VMMIG_NO_CONVERGE: {
      summary:
        'The guest writes to its memory faster than the link takes it, so it could not be stopped for as short a time as ' +
        '`--max-downtime` says. The message has the numbers.',
      nextStep:
        'Allow a longer pause (`--max-downtime`), give the link more, wait for a quieter time, or say with `--on-no-converge` ' +
        'what to do: `throttle` slows the guest down, `stop-and-copy` stops it for as long as it takes, `switch` lets it run ' +
        'on the destination first. As a notice: what was said there is being done.',
    },
    VMMIG_SOURCE_UNCONFIRMED: {
      summary: 'The migration failed, and the source did not confirm that it let the guest run again.',
      whereIsTheGuest: 'On the source, probably running: not on the destination.',
      nextStep: 'Look with `vmmig list`; if it is paused on the source, let it run there (`cont` in QEMU’s monitor).',
    },
    VMMIG_DESTINATION_NOT_TOLD: {
      summary: 'The guest moved, and the destination could not be told that the source has let go of it.',
      whereIsTheGuest: 'On the destination, running.',
      nextStep:
        '`vmmig recover` when the destination is within reach: it removes what that has noted of the migration.',
    },
    VMMIG_SOURCE_NOT_RELEASED: {
      summary: 'The guest moved, but what is left of it on the source could not be removed.',
      whereIsTheGuest: 'On the destination, running.',
      nextStep: 'End the paused QEMU on the source by hand. Never let it run: the guest would run twice.',
    },
    VMMIG_INTERNAL: {
      summary: 'Something happened that vmmig has no name for: a defect in vmmig.',
      whereIsTheGuest: 'Where the report says.',
      nextStep: 'Please report it, with the output of `vmmig show GUEST --json`.',
    },
  },
} as const satisfies ErrorArea;

export const relay = {
  title: 'Relays and link',
  whereIsTheGuest: 'On the source, running as before, unless the report says otherwise.',
  codes: {
    VMMIG_LINK_CONNECT: {
      summary: 'The relays could not connect to each other.',
      nextStep:
        'Let the source reach the destination’s `address` on its `linkPorts` (inventory); a firewall is the usual reason.',
    },
    VMMIG_LINK_AUTH: {
      summary: 'Whoever connected did not have this migration’s key, or the encrypted connection was tampered with.',
      nextStep: 'Check what sits between the hosts: something other than vmmig answered or listened in.',
    },
    VMMIG_LINK_INCOMPATIBLE: {
      summary: 'The two relays are of versions that do not understand each other.',
      nextStep: 'Install the same version on both hosts.',
    },
    VMMIG_LINK_PROTOCOL: {
      summary: 'The other relay sent what no relay may send.',
      nextStep: 'Install the same version on both hosts; if they are the same, please report it.',
    },
    VMMIG_LINK_LOST: {
      summary: 'The network between the relays failed and did not come back in time.',
      nextStep: 'Check the network between the hosts, and try again.',
    },
    VMMIG_RELAY_STREAM: {
      summary: 'QEMU’s migration stream cannot be relayed.',
      nextStep: 'The message says what in the stream is not understood; nothing was guessed.',
    },
    VMMIG_RELAY_QEMU: {
      summary: 'A relay’s connection to its QEMU ended too early.',
      nextStep: 'See the log of that QEMU: it ended, or gave the migration up.',
    },
    VMMIG_RELAY_VERIFY: {
      summary:
        'The digests of the two sides differ: a page would have arrived wrong, so the guest was not let run there.',
      nextStep:
        'Please report it, with the output of `vmmig show GUEST --json`. Memory that fails is the other possible reason.',
    },
    VMMIG_RELAY_STORAGE: {
      summary:
        'The destination’s storage, from which the guest’s page cache is read, has not answered for a minute. The guest would have to wait for it there, too.',
      nextStep: 'Look for what holds the storage up on the destination, then move the guest again.',
    },
    VMMIG_RELAY_ABORTED: {
      summary: 'The relay was told to stop: the migration was cancelled, or failed elsewhere.',
      nextStep: 'The report names the error that came first.',
    },
  },
} as const satisfies ErrorArea;

export const lab = {
  title: 'The lab',
  whereIsTheGuest: 'Guests of the lab live and die with it.',
  codes: {
    VMMIG_LAB_UNSUPPORTED: {
      summary: 'This machine, or this user, cannot run the lab.',
      nextStep: 'The message says what is missing; the lab needs root.',
    },
    VMMIG_LAB_COMMAND: {
      summary: 'A command that the lab needs failed.',
      nextStep: 'The message holds what it said.',
    },
    VMMIG_LAB_BUSY: {
      summary: 'Another lab command is at work.',
      nextStep: 'Wait for it to end.',
    },
    VMMIG_LAB_DOWN: {
      summary: 'The lab is not up.',
      nextStep: 'Raise it: `vmmig lab up`.',
    },
    VMMIG_LAB_GUEST: {
      summary: 'A guest of the lab did not start, or does not answer.',
      nextStep: 'The message holds the end of its log; `vmmig lab down` and `vmmig lab up` start afresh.',
    },
    VMMIG_LAB_TIMEOUT: {
      summary: 'A part of the lab did not answer in time.',
      nextStep: 'The machine may be overloaded: try again.',
    },
  },
} as const satisfies ErrorArea;
