/** Errors of guests that libvirt manages. */
import type { ErrorArea } from './area.js';

export const libvirt = {
  title: 'libvirt',
  whereIsTheGuest: 'On the source, running as before, unless the report says otherwise.',
  codes: {
    VMMIG_LIBVIRT_UNREACHABLE: {
      summary: 'virsh is not installed on a host, or its libvirt daemon does not answer.',
      nextStep: 'See whether `virsh -c qemu:///system list` works there, as the user that vmmig runs as.',
    },
    VMMIG_LIBVIRT_COMMAND: {
      summary: 'libvirt refused what it was asked for.',
      nextStep: 'The message holds libvirt’s reason; its log on that host may say more.',
    },
    VMMIG_LIBVIRT_NO_DOMAIN: {
      summary: 'libvirt has no such domain.',
      nextStep: 'See `virsh list --all` on both hosts; another tool may have removed or renamed it.',
    },
    VMMIG_LIBVIRT_UNSAFE: {
      summary: 'libvirt holds the migration to be unsafe, mostly because it does not take the storage for shared.',
      nextStep: 'Where both hosts see the same images, and disks use `cache=none`, say `--unsafe`.',
    },
    VMMIG_LIBVIRT_MIGRATE: {
      summary: 'libvirt gave the migration up.',
      nextStep: 'The message holds its reason, of the host on which it happened; its log there may say more.',
    },
    VMMIG_DOMAIN_BUSY: {
      summary: 'libvirt or QEMU is doing something else with the domain: a snapshot, a backup, another migration.',
      nextStep: 'Wait for it to end, or end it with `virsh domjobabort` or `virsh blockjob --abort`.',
    },
    VMMIG_DOMAIN_SNAPSHOT: {
      summary: 'The domain has snapshots, with which libvirt does not migrate it.',
      nextStep:
        'Delete them: `virsh snapshot-delete --metadata` drops what libvirt knows of them and leaves the images.',
    },
    VMMIG_DOMAIN_DESTINATION: {
      summary: 'The destination’s libvirt cannot take the domain in.',
      nextStep: 'Do what the message says; `--dest-name` gives the domain another name there.',
    },
  },
} as const satisfies ErrorArea;
