/** Errors of a switch: of its commit point, of the pages that wait on the source, and of putting things in order later. */
import type { ErrorArea } from './area.js';

export const switching = {
  title: 'Switch and recovery',
  whereIsTheGuest: 'Where the report says: on the source before the commit point, on the destination after it.',
  codes: {
    VMMIG_SWITCH_REFUSED: {
      summary: 'The destination did not take over: its QEMU could not load the guest, or was ended before it had.',
      whereIsTheGuest: 'On the source, running as before.',
      nextStep: 'The message says why. Both QEMUs need the same machine type, devices and memory.',
    },
    VMMIG_HAND_OVER: {
      summary:
        'The guest had been stopped to be handed over, and for 30 s neither host said more: the link between them is cut, or the destination’s QEMU does not come to an end with loading it.',
      whereIsTheGuest:
        'Where the report says. On the source, running as before, when the destination could be asked; with exit code 7 it is kept paused there.',
      nextStep: 'After exit code 1 look at the network and try again. After 7 run `vmmig recover GUEST`.',
    },
    VMMIG_EXPOSURE: {
      summary:
        'After a switch the link would take longer than `--max-exposure` to bring what the guest still needs, so it was not switched.',
      whereIsTheGuest: 'On the source, running as before.',
      nextStep: 'Send memory ahead of the switch (`--after 2m`, `--after converged`), or allow for more exposure.',
    },
    VMMIG_LEFT: {
      summary: 'The command was made to end while the guest’s memory was still being pulled.',
      whereIsTheGuest: 'On the destination, running; part of its memory is still on the source.',
      nextStep: 'The pull goes on by itself: see `vmmig status GUEST`. `vmmig recover GUEST` watches it to its end.',
    },
    VMMIG_MEMORY_LOST: {
      summary:
        'The source’s service, or of libvirt’s guests the destination’s, ended before all of the guest’s memory was there: the rest is lost.',
      whereIsTheGuest: 'On the destination; it stands still as soon as it touches memory that is not there.',
      nextStep: 'End it there, and start it again from its disk, as after a power cut.',
    },
    VMMIG_GUEST_ENDED: {
      summary:
        'The guest’s QEMU has ended: on the source before the guest had been handed over, or on both hosts. The message has what was noticed of it.',
      whereIsTheGuest: 'Nowhere. Nothing of the migration is left on the hosts.',
      nextStep: 'Start it again from its disk, as after a power cut, and look for what ended its QEMU.',
    },
    VMMIG_QEMU_SILENT: {
      summary: 'The guest’s QEMU is there and does not answer on its monitor, so nothing was done to it.',
      nextStep: 'End whatever else uses that monitor, then run `vmmig recover GUEST`.',
    },
    VMMIG_PULL_STOPPED: {
      summary: 'A host’s service that the pull needs has ended before the guest had all of its memory.',
      whereIsTheGuest: 'On the destination; it stands still as soon as it touches memory that is not there.',
      nextStep:
        'See what to do after each failure in docs/switch.md; a guest whose memory is lost has to be started again from its disk.',
    },
    VMMIG_TAKEN_OVER: {
      summary:
        'A host’s service died during the pull and was replaced. The report’s `verified` is null: each page was checked on its way, but what had come before cannot be compared as a whole.',
      whereIsTheGuest: 'On the destination, running.',
      nextStep: 'Nothing. What killed the service is worth finding out: memory that ran short, mostly.',
    },
    VMMIG_TAKEOVER: {
      summary: 'The place of a service that died during the pull cannot be taken.',
      whereIsTheGuest: 'On the destination; it stands still as soon as it touches memory that is not there.',
      nextStep:
        'The message says what is missing. Without the destination’s QEMU, or the source’s service, the guest has to be started again from its disk.',
    },
    VMMIG_DESTINATION_RECOVER: {
      summary: 'The destination’s QEMU, whose migration stream broke, does not take another one.',
      whereIsTheGuest: 'On the destination; it stands still as soon as it touches memory that is not there.',
      nextStep: 'Run `vmmig recover GUEST` again. The message has QEMU’s own words.',
    },
    VMMIG_HOST_SILENT: {
      summary: 'A host that has a part in the migration cannot be asked.',
      whereIsTheGuest: 'Where the report says; `unknown` when only that host could say it.',
      nextStep: 'Run `vmmig recover GUEST` when the host can be reached again.',
    },
    VMMIG_GIVEN_UP: {
      summary: '`vmmig recover` found a migration that had not come to its commit point, and gave it up.',
      whereIsTheGuest: 'On the source, running.',
      nextStep: 'Nothing: both hosts are as they were. Move the guest again when you like.',
    },
    VMMIG_UNRESOLVED: {
      summary:
        '`vmmig recover` could not ask a host that has to say where the guest is. The message has what the other one answered.',
      whereIsTheGuest: 'Not known; it is kept paused on the source, if it is still there.',
      nextStep: 'Make the host reachable that the message names, and run `vmmig recover GUEST` again.',
    },
    VMMIG_INCONCLUSIVE: {
      summary:
        'Both hosts have answered `vmmig recover`, and what they say does not decide where the guest is. The message has the answers, and why.',
      whereIsTheGuest: 'Not known; mostly it is kept paused on the source, and goes on nowhere by itself.',
      nextStep:
        'The message says it, by what the hosts have answered: mostly end both QEMUs, start the guest again from its disk, and run `vmmig recover GUEST` once more. See “Exit code 7” in docs/switch.md.',
    },
    VMMIG_USAGE_NOTHING_TO_RECOVER: {
      summary: 'No host, and no journal on this machine, knows of an unfinished migration of that guest.',
      whereIsTheGuest: 'Where `vmmig list` says.',
      nextStep: 'Nothing to do; `vmmig status` lists the migrations that are not over.',
    },
    VMMIG_LEDGER_WRITE: {
      summary: 'A host could not put on disk what the other one relies on, so what was to follow was not done.',
      nextStep: 'Make room in `runDir` of the host that the message names, and see that it can be written.',
    },
    VMMIG_LEDGER_INVALID: {
      summary: 'What lies in the place of a migration’s record on a host is not one, or others can write to it.',
      nextStep: 'Look at the file that the message names; it is not acted on, and never removed.',
    },
    VMMIG_STORE_LIMIT: {
      summary: 'The page store’s limit is too small to work with.',
      whereIsTheGuest: 'On the source, running as before.',
      nextStep: 'Give it more with `--page-store-limit`, or free memory on the source.',
    },
    VMMIG_STORE_RANGE: {
      summary: 'QEMU’s stream, or the destination, named a page that the guest does not have.',
      nextStep: 'Please report it, with the version of QEMU.',
    },
    VMMIG_STORE_SPILL_OPEN: {
      summary: 'The page store’s file (`--spill`) cannot be created on the source.',
      whereIsTheGuest: 'On the source, running as before.',
      nextStep: 'See that `stateDir` of the source can be written.',
    },
    VMMIG_STORE_DISK_FULL: {
      summary: 'The file system of the page store’s file is full.',
      nextStep: 'Make room in `stateDir` of the source, or leave out `--spill`: QEMU waits for the link then.',
    },
    VMMIG_STORE_SPILL_IO: {
      summary: 'The page store’s file cannot be written or read.',
      nextStep: 'Check the disk that holds `stateDir` of the source.',
    },
    VMMIG_STORE_CORRUPT: {
      summary: 'A page that the page store had put away did not come back as it was.',
      nextStep: 'Check the memory and the disk of the source host.',
    },
    VMMIG_STORE_LOST: {
      summary: 'The destination lacks a page that it had said it has, and the source has let go of.',
      nextStep: 'Please report it; the guest has to be started again from its disk.',
    },
    VMMIG_MEMORY_FILE_OPEN: {
      summary: 'The file that holds the guest’s memory cannot be opened on the source.',
      whereIsTheGuest: 'On the source, running as before.',
      nextStep: 'See that vmmig may read it: mostly it has to run as root, or as QEMU’s user.',
    },
    VMMIG_MEMORY_FILE_READ: {
      summary: 'The file that holds the guest’s memory is shorter than that memory, or cannot be read.',
      nextStep: 'Do not touch that file while a guest lives in it.',
    },
    VMMIG_MEMORY_FILE_RELEASE: {
      summary: 'The memory of the guest’s file could not be given back on the source.',
      whereIsTheGuest: 'On the destination, running.',
      nextStep: 'Remove the file on the source by hand, once no QEMU there uses it.',
    },
    VMMIG_MEMORY_FILE_HEAD: {
      summary: 'What QEMU’s stream begins with is not what a destination can be given.',
      whereIsTheGuest: 'On the source, running as before.',
      nextStep: 'Please report it, with the version of QEMU.',
    },
  },
} as const satisfies ErrorArea;
