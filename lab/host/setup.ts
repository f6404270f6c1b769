/** Makes a bare set of namespaces a host: private directories, names, no KVM, its network device, an SSH server. */
import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { guestDirectory, type HostName, hostNames, labPaths, networks } from '../settings.js';
import { cancel, labExec } from './members.js';
import { insideConfigPath, sshdConfigPath } from './ssh.js';

/**
 * Runs inside the host. What is mounted here is seen by no one else. /dev/kvm is hidden because a host of this lab must
 * behave the same on every machine, and a KVM that exists but does not work makes QEMU hang. It is read-only because libvirt
 * takes one that it may write to for news, and probes QEMU again for everything it does.
 */
const script = `
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs tmpfs /dev/shm
mkdir -p /run/sshd /run/lock "$GUESTS"
touch /run/hidden
if [ -e /dev/kvm ]; then mount --bind /run/hidden /dev/kvm; mount -o remount,bind,ro /dev/kvm; fi

# A locked root account may not log in, not even by key, when there is no PAM.
sed 's/^root:[^:]*/root:*/' /etc/shadow > /run/shadow
chmod 600 /run/shadow
mount --bind /run/shadow /etc/shadow
{ echo '127.0.0.1 localhost'; echo "$HOSTS"; } > /run/hosts
mount --bind /run/hosts /etc/hosts
# A login shell sets its own path.
{ cat /etc/profile; echo "PATH=$PATH"; } > /run/profile
mount --bind /run/profile /etc/profile
mount --bind "$INSIDE_CONFIG" "$SSH_CONFIG"
# libvirt runs ssh without being told of a configuration.
mount --bind "$INSIDE_CONFIG" /etc/ssh/ssh_config

ip link set lo up
ip address add "$ADDRESS/24" dev eth0
ip link set eth0 up
# Debian's congestion control, so that figures do not depend on what this machine prefers.
ip route add default via "$GATEWAY" congctl cubic || ip route add default via "$GATEWAY"
setsid --fork "$(command -v sshd)" -D -f "$SSHD_CONFIG" -E "$DIRECTORY/sshd.log" </dev/null >/dev/null 2>&1
`;

/** Prepares `host`, whose eth0 must exist. */
export async function setUpHost(host: HostName, signal?: AbortSignal): Promise<void> {
  const directory = labPaths.hostDirectory(host);
  const configDirectory = join(directory, 'home/.config/vmmig');
  await mkdir(configDirectory, { recursive: true });
  await mkdir(join(directory, 'state'), { recursive: true });
  // What the host's own vmmig reads when no inventory is named.
  await symlink(labPaths.inventory(), join(configDirectory, 'inventory.yaml'));
  await labExec(host, ['sh', '-euc', script], {
    ...cancel(signal),
    env: {
      GUESTS: guestDirectory,
      HOSTS: hostNames.map((name) => `${networks[name].address} ${name}`).join('\n'),
      INSIDE_CONFIG: insideConfigPath(),
      SSH_CONFIG: labPaths.sshConfig(),
      SSHD_CONFIG: sshdConfigPath(host),
      DIRECTORY: directory,
      ADDRESS: networks[host].address,
      GATEWAY: networks[host].gateway,
    },
  });
}
