/** Errors of the guest's parts: its QEMU, its agent, its disks. */
import type { ErrorArea } from './area.js';

export const qemu = {
  title: 'QEMU',
  whereIsTheGuest: 'On the source, running as before, unless the report says otherwise.',
  codes: {
    VMMIG_GUEST_NOT_FOUND: {
      summary: 'No QEMU answers for the guest on any host where it could be.',
      whereIsTheGuest: 'Not known: probably off, or on a host that the inventory does not name.',
      nextStep: 'Start it, or correct `host` and `qmp` of the guest in the inventory; `--from HOST` names its host.',
    },
    VMMIG_INSPECT: {
      summary: 'The guest’s QEMU, or what it says about itself, cannot be read.',
      nextStep: 'vmmig must run as a user who may read /proc of that process and its QMP socket, mostly root.',
    },
    VMMIG_DESTINATION_START: {
      summary: 'QEMU did not start on the destination.',
      nextStep:
        'The message holds what it said. Paths, networks and devices must exist there; the inventory can change its command line.',
    },
    VMMIG_DESTINATION_LOAD: {
      summary: 'The destination’s QEMU did not take the guest’s state.',
      nextStep: 'Both QEMUs need the same machine type, devices and memory; the message names what differs.',
    },
    VMMIG_SOURCE_MIGRATION: {
      summary: 'The source’s QEMU could not start, finish or cancel its side of the migration.',
      nextStep: 'The message holds its reason. A device that cannot be migrated has to be unplugged first.',
    },
    VMMIG_RESUME: {
      summary: 'The guest is paused and could not be let run again.',
      whereIsTheGuest: 'Paused, on the host that the message names.',
      nextStep: 'Let it run by hand there: `cont` in QEMU’s monitor. Never on both hosts.',
    },
    VMMIG_PROCESS_END: {
      summary: 'A QEMU process that is no longer needed did not end.',
      whereIsTheGuest: 'Where the report says; the process that remains is not the running guest.',
      nextStep: 'End the process that the message names, after checking with `vmmig list` that it is not the guest.',
    },
    VMMIG_QMP_CONNECT: {
      summary: 'QEMU’s QMP socket could not be opened: nothing listens, no permission, or no answer in time.',
      nextStep: 'Check that the guest runs and that `qmp` in the inventory is its socket.',
    },
    VMMIG_QMP_GREETING: {
      summary: 'What listens on the QMP socket did not greet as QEMU does.',
      nextStep: 'The path may be another socket (the human monitor, the agent), or another client holds it.',
    },
    VMMIG_QMP_PROTOCOL: {
      summary: 'QEMU broke its own protocol; the connection was closed.',
      nextStep: 'Try again; if it happens again, please report it with the version of QEMU.',
    },
    VMMIG_QMP_COMMAND: {
      summary: 'QEMU refused a command.',
      nextStep: 'The message holds QEMU’s reason.',
    },
    VMMIG_QMP_INTERRUPTED: {
      summary: 'The connection to QEMU ended before it answered.',
      nextStep: 'See whether that QEMU still runs (`vmmig list`) and what its log says.',
    },
    VMMIG_QMP_OVERFLOW: {
      summary: 'QEMU sent events faster than they were read.',
      nextStep: 'The machine is overloaded: try again when it is less busy.',
    },
    VMMIG_STREAM_CORRUPT: {
      summary: 'QEMU’s migration stream is damaged: no QEMU writes this.',
      nextStep:
        'Please report it with the version of QEMU; `vmmig stream inspect` shows where a captured stream is wrong.',
    },
    VMMIG_STREAM_UNSUPPORTED: {
      summary: 'The migration stream uses something that vmmig does not know, and it does not guess.',
      nextStep: 'Switch the capability that the message names off, or use a newer vmmig.',
    },
    VMMIG_STREAM_TRUNCATED: {
      summary: 'The migration stream ended before it was complete.',
      nextStep: 'QEMU’s log on the source says why it stopped.',
    },
  },
} as const satisfies ErrorArea;

export const agent = {
  title: 'Guest agent',
  whereIsTheGuest:
    'Where it was. No error of the agent affects the guest: at worst, its page cache is sent instead of teleported.',
  codes: {
    VMMIG_AGENT_UNAVAILABLE: {
      summary: 'No agent answers: none is installed, it does not run, or its socket is missing or in use.',
      nextStep:
        'Run qemu-guest-agent in the guest, or vmmig-agent with the port `org.vmmig.agent.0`: docs/guest-agent.md.',
    },
    VMMIG_AGENT_VERSION: {
      summary: 'The agent speaks no version of the protocol that this vmmig speaks.',
      nextStep: 'Install the agent that came with this vmmig.',
    },
    VMMIG_AGENT_UNSUPPORTED: {
      summary: 'The guest’s kernel cannot tell where its page cache is, or its pages are not 4 KiB.',
      nextStep: 'Nothing to do: move the guest without it (`--no-agent` saves the attempt).',
    },
    VMMIG_AGENT_BUSY: {
      summary: 'The agent is scanning for someone else already.',
      nextStep: 'Wait for the other scan, and try again.',
    },
    VMMIG_AGENT_SLOW: {
      summary: 'The agent takes long, and the migration has begun without it. What it says from then on is still used.',
      nextStep: 'The guest leaves its agent no processor time: it is moved all the same, with more to send.',
    },
    VMMIG_AGENT_TIMEOUT: {
      summary: 'The agent did not answer in time.',
      nextStep: 'The guest may be overloaded or paused: try again, or use `--no-agent`.',
    },
    VMMIG_AGENT_PROTOCOL: {
      summary: 'The agent sent what no agent may send; the connection was closed.',
      nextStep: 'Reinstall the agent. If that does not help, treat the guest as compromised.',
    },
    VMMIG_AGENT_DISCONNECTED: {
      summary: 'The connection to the agent ended.',
      nextStep: 'See in the guest whether vmmig-agent still runs, and why not.',
    },
    VMMIG_AGENT_BLOCKED: {
      summary: 'qemu-guest-agent answers, but is not allowed to run programs or to open files.',
      nextStep:
        'Allow the commands that the message names in the guest’s configuration of qemu-ga, or run vmmig-agent there.',
    },
    VMMIG_AGENT_COMMAND: {
      summary: 'qemu-guest-agent could not do what vmmig asked of it.',
      nextStep: 'The message holds its reason. SELinux or a restricted service in the guest may be in the way.',
    },
    VMMIG_AGENT_START: {
      summary: 'The agent that was brought into the guest by qemu-guest-agent does not run there.',
      nextStep:
        'The message holds what the guest said: it needs sh, gzip, sha256sum, and a directory in memory that programs may run from.',
    },
  },
} as const satisfies ErrorArea;

export const disk = {
  title: 'Disks',
  whereIsTheGuest: 'On the source, running as before.',
  codes: {
    VMMIG_DISK_OPEN: {
      summary: 'A disk image cannot be opened on the destination.',
      nextStep: 'The storage must be mounted there; the inventory can give the image another path on each host.',
    },
    VMMIG_DISK_FORMAT: {
      summary: 'The image has a format that vmmig cannot read.',
      nextStep:
        'Nothing is lost: the guest can move with `--no-agent`. docs/disks.md has the formats that can be read.',
    },
    VMMIG_DISK_QEMU_NBD: {
      summary: 'qemu-nbd is needed to read an image, and is not installed on the destination.',
      nextStep: 'Install it there: it is in qemu-utils, on Fedora and RHEL in qemu-img.',
    },
    VMMIG_DISK_ENCRYPTED: {
      summary: 'QEMU encrypts the image, and its key is not on the destination.',
      nextStep: 'Nothing is lost: the page cache of this disk is sent over the network.',
    },
    VMMIG_DISK_SERVER: {
      summary: 'qemu-nbd, or the server that has the image, broke the protocol, did not answer, or ended.',
      nextStep: 'What it was asked for is sent over the network. Look for its end in the destination’s kernel log.',
    },
    VMMIG_DISK_RANGE: {
      summary: 'The agent or the source named a place beyond the end of a disk.',
      nextStep: 'Both hosts must see the same image. If they do, please report it.',
    },
    VMMIG_DISK_READ: {
      summary: 'The storage answered with an error, or with fewer bytes than the disk has.',
      nextStep: 'Look for storage errors in the destination’s kernel log.',
    },
    VMMIG_DISK_SILENT: {
      summary: 'The storage has not answered a read for a minute.',
      nextStep: 'Look for what holds it up: the destination’s kernel log, its paths to the storage, the server.',
    },
    VMMIG_DISK_CLOSED: {
      summary: 'A disk was closed while it was being read, because the migration ended.',
      nextStep: 'The report names the error that came first.',
    },
  },
} as const satisfies ErrorArea;
