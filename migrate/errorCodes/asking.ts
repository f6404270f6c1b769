/** Errors before anything is begun: what was asked for, and the hosts it was asked of. */
import type { ErrorArea } from './area.js';

export const usage = {
  title: 'Command line and inventory',
  whereIsTheGuest: 'Where it was: nothing was tried.',
  codes: {
    VMMIG_USAGE_GUEST: {
      summary: 'The inventory has no guest of that name.',
      nextStep: 'Compare with `vmmig list`; a guest is named as in the `guests` section of the inventory.',
    },
    VMMIG_USAGE_FILE: {
      summary: 'A file that was named on the command line cannot be read.',
      nextStep: 'Check the path after `--xml`; it is read where vmmig is called.',
    },
    VMMIG_USAGE_SAME_HOST: {
      summary: 'The guest is on the host already that it was to go to.',
      nextStep: 'Nothing to do, unless `--to` or `--from` names the wrong host.',
    },
    VMMIG_USAGE_NOT_MIGRATING: {
      summary: 'There is nothing to cancel: no vmmig on this machine is moving that guest.',
      nextStep: 'Cancel on the machine where the migration was started; `vmmig history` shows those that ended here.',
    },
    VMMIG_USAGE_NO_REPORT: {
      summary: 'No report of that migration, or of that guest, is kept on this machine.',
      nextStep: 'Compare with `vmmig history`; reports stay on the machine where the migration was started.',
    },
    VMMIG_INVENTORY_NOT_FOUND: {
      summary: 'The inventory file that was asked for cannot be read.',
      nextStep: 'Check the path given by `--inventory` or by the environment variable VMMIG_INVENTORY.',
    },
    VMMIG_INVENTORY_INVALID: {
      summary: 'The inventory file is not valid; the message names every line and field that is wrong.',
      nextStep: 'Correct the lines named; docs/inventory.md describes the file.',
    },
  },
} as const satisfies ErrorArea;

export const hosts = {
  title: 'Hosts and SSH',
  whereIsTheGuest:
    'On the source, running as before, unless the report says otherwise: these errors mostly come before anything is changed.',
  codes: {
    VMMIG_SSH_UNREACHABLE: {
      summary: 'No connection to the host: wrong address or port, no route, a firewall, or the host is down.',
      nextStep: 'Try `ssh` with the same destination; then `vmmig host check HOST`.',
    },
    VMMIG_SSH_AUTH: {
      summary: 'The host refused every key that could be offered.',
      nextStep:
        'Put a key of yours into its `authorized_keys`, load it into the SSH agent, or name it as `identityFile` in the inventory.',
    },
    VMMIG_SSH_HOST_KEY: {
      summary:
        'The host cannot be proven to be the one in known_hosts: its key is unknown, changed or revoked. Nothing was sent to it.',
      nextStep:
        'Compare the fingerprint in the message with the host’s own; only then add or replace it in known_hosts.',
    },
    VMMIG_SSH_LOST: {
      summary: 'An SSH connection that was established ended or fell silent.',
      nextStep: 'Check the network between the machines, and try again.',
    },
    VMMIG_SSH_PROTOCOL: {
      summary: 'The two ends have no SSH algorithm in common, or what answers does not speak SSH.',
      nextStep: 'Check the port, and that the host’s SSH server is not too old.',
    },
    VMMIG_SSH_CONFIG: {
      summary: 'ssh_config, known_hosts, an identity file or an SSH destination cannot be used as written.',
      nextStep: 'Correct what the message names. A host is a name in the inventory, or `[user@]host[:port]`.',
    },
    VMMIG_HOST_COMMAND: {
      summary: 'A process could not be started on the host, or wrote more than can be kept.',
      nextStep: 'Run the command of the message on the host by hand; `vmmig host check HOST` says what the host lacks.',
    },
    VMMIG_HOST_TIMEOUT: {
      summary: 'The host did not finish in time what it was asked to do.',
      nextStep: 'Check the load of the host and its storage, and try again.',
    },
    VMMIG_HOST_NO_VMMIG: {
      summary: 'The host has no `vmmig` command under the name that the inventory gives.',
      nextStep: 'Install vmmig there, or correct `vmmig` of that host in the inventory.',
    },
    VMMIG_HOST_INCOMPATIBLE: {
      summary: 'What answered on the host is not vmmig, or speaks another version of its protocol.',
      nextStep: 'Install the same version on both hosts; shell start-up files of the host must print nothing.',
    },
    VMMIG_HOST_SERVICE_ENDED: {
      summary: 'The vmmig process on the host ended while it was needed.',
      nextStep: 'Look for the reason in the host’s log (out of memory, killed), and try again.',
    },
    VMMIG_SERVICE_ORDER: {
      summary: 'The two vmmig processes lost step: one was asked for something out of order.',
      nextStep: 'Install the same version on both hosts; if they are the same, please report it.',
    },
    VMMIG_SERVICE_PARAMS: {
      summary: 'The vmmig process on a host did not understand what it was asked.',
      nextStep: 'Install the same version on both hosts; if they are the same, please report it.',
    },
    VMMIG_REMOTE_ERROR: {
      summary: 'Something failed on the host for which vmmig there has no code.',
      nextStep: 'The message is the host’s own. If it does not help, please report it.',
    },
  },
} as const satisfies ErrorArea;
