/** What preflight finds. Findings are listed all at once; those that refuse stop the migration before anything is changed. */
import type { ErrorArea } from './area.js';

export const findings = {
  title: 'Findings of preflight',
  whereIsTheGuest: 'On the source, as before: nothing was changed.',
  codes: {
    VMMIG_PREFLIGHT_REFUSED: {
      summary: 'Preflight found at least one reason not to begin; the report lists all of them.',
      nextStep: 'Do what each finding says; `vmmig preflight` checks again without moving anything.',
    },
    VMMIG_PREFLIGHT_NO_AGENT: {
      summary:
        'No agent answers in the guest, so its page cache is sent over the network. A warning: the migration goes on.',
      nextStep: 'Run vmmig-agent in the guest, and give it a virtio-serial port named `org.vmmig.agent.0`.',
    },
    VMMIG_COMMAND_LINE: {
      summary: 'The command line of the source’s QEMU cannot be used on another host as it is.',
      nextStep:
        'Change what the message names, for the destination only, in `destination` of the guest in the inventory.',
    },
    VMMIG_GUEST_NOT_RUNNING: {
      summary: 'The guest is not running: it is paused, has crashed, or is shut down.',
      nextStep: 'Let it run (`cont` in QEMU’s monitor), or start it on the destination instead of moving it.',
    },
    VMMIG_MIGRATION_BLOCKED: {
      summary: 'QEMU itself refuses to migrate the guest, mostly because of a device.',
      nextStep: 'Unplug or replace the device that the message names.',
    },
    VMMIG_MIGRATION_RUNNING: {
      summary: 'Another migration of the guest is under way, started by someone else.',
      nextStep: 'Wait for it, or cancel it where it was started.',
    },
    VMMIG_HOST_DEVICE: {
      summary: 'The guest uses a device that is bound to its host.',
      nextStep: 'Unplug the device before the migration.',
    },
    VMMIG_SWITCH_DEVICE: {
      summary: 'The guest has a device that reaches its memory past the mechanism that brings it after a switch.',
      nextStep: 'Unplug the device, or use `vmmig teleport`, which brings all memory before the guest resumes.',
    },
    VMMIG_SWITCH_MEMORY: {
      summary: 'The guest’s memory is of a kind that cannot be brought after a switch.',
      nextStep: 'Use `vmmig teleport`, or give the guest other memory: no persistent memory, no gigantic pages.',
    },
    VMMIG_USERFAULTFD: {
      summary:
        'QEMU may not use `userfaultfd` on the destination, so the guest could not run there before all its memory is.',
      nextStep:
        'Let QEMU run as root there, or set `vm.unprivileged_userfaultfd=1`, or, from QEMU 8.1 on, give it access to /dev/userfaultfd.',
    },
    VMMIG_DISK_IMAGE: {
      summary: 'The destination cannot have a disk image of the guest.',
      nextStep: 'Put the image on storage that both hosts see, or name its path on each host in the inventory.',
    },
    VMMIG_DISK_DIFFERENT: {
      summary:
        'The destination has another disk under the name of the guest’s: what a few blocks hold was compared on both hosts.',
      nextStep: 'Share or replicate the right image, or name its path on that host in the inventory.',
    },
    VMMIG_DISK_IN_USE: {
      summary: 'A process on the destination has an image of the guest open for writing.',
      nextStep: 'End it, or find out which of the two is to have the disk: both would destroy it.',
    },
    VMMIG_DIRTY_LOG: {
      summary: 'QEMU would lose writes of the guest while it is being migrated.',
      nextStep: 'Run the guest under KVM or QEMU 9.0 or newer, or give it memory that is no multiple of 256 KiB.',
    },
    VMMIG_CPU_MODEL: {
      summary:
        'The guest’s CPU has features that the destination’s host or QEMU cannot give it; as a warning: it may have some.',
      nextStep:
        'Choose a host with such a CPU, or start the guest with a named CPU model (`-cpu`) that both hosts have, instead of ' +
        '`host` or `max`.',
    },
    VMMIG_VERSION_MISMATCH: {
      summary: 'The two hosts have different versions of vmmig, whose relays do not negotiate.',
      nextStep: 'Install the same version on both.',
    },
    VMMIG_CLOCK_SKEW: {
      summary: 'The clocks of the two hosts differ by more than half a second. A warning: the migration goes on.',
      nextStep:
        'Let a time service keep both: a guest that takes its time from its host would see it jump, and their logs cannot be ' +
        'compared.',
    },
    VMMIG_SOURCE_DIRECTORY: {
      summary: 'vmmig cannot put its own files into `runDir` of the source: there is no access, or no space left.',
      nextStep: 'Give access to it, make room, or name another one in the inventory.',
    },
    VMMIG_DESTINATION_QEMU: {
      summary: 'The destination has no QEMU, or not one that runs this guest.',
      nextStep: 'Install it, or name it as `qemu` of that host in the inventory.',
    },
    VMMIG_DESTINATION_PATH: {
      summary: 'A file or directory that the guest’s command line names is missing on the destination.',
      nextStep: 'Create it there, or replace the path in `destination` of the guest in the inventory.',
    },
    VMMIG_DESTINATION_ADDRESS: {
      summary: 'A socket or port that the guest needs is in use on the destination.',
      nextStep: 'Free it, or replace it in `destination` of the guest in the inventory.',
    },
    VMMIG_DESTINATION_MEMORY: {
      summary: 'The destination does not have the memory for the guest.',
      nextStep: 'Move or stop another guest there first.',
    },
    VMMIG_DESTINATION_SPACE: {
      summary: 'The destination has no space left for vmmig’s own files.',
      nextStep: 'Make room in `runDir` and `stateDir` of that host.',
    },
  },
} as const satisfies ErrorArea;
