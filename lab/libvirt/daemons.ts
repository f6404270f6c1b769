/**
 * A libvirt of its own in each host: virtlogd and libvirtd with private configuration, state, logs and sockets. This
 * machine's own libvirt, if it has one, sees nothing of them, and they see nothing of it.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LabError } from '../errors.js';
import { cancel, labExec } from '../host/members.js';
import { type HostName, hostNames, labPaths } from '../settings.js';
import { type LibvirtVersion, libvirtOverlay } from './version.js';

/** libvirt tells hosts apart by these, and refuses to migrate to the one it is on. DMI would give both the same. */
const hostUuids: Record<HostName, string> = {
  hostA: '6c616200-0000-4000-8000-00000000000a',
  hostB: '6c616200-0000-4000-8000-00000000000b',
};

/** What is not said is as Debian ships it. */
function configurationFiles(host: HostName): Record<string, string[]> {
  return {
    'libvirt.conf': ['uri_default = "qemu:///system"'],
    'libvirtd.conf': [
      `host_uuid = "${hostUuids[host]}"`,
      // Whoever reaches the socket is root here: there is no polkit to ask.
      'auth_unix_rw = "none"',
      'unix_sock_rw_perms = "0700"',
      'log_outputs = "3:file:/var/log/libvirt/libvirtd.log"',
    ],
    'qemu.conf': [
      // Debian's QEMU runs as libvirt-qemu, which may not do post-copy unless vm.unprivileged_userfaultfd is set: a
      // setting of the whole machine, which is not the lab's to change. A guest may be given that user (see domainXml.ts).
      'user = "root"',
      'group = "root"',
      // libvirt would give QEMU a /dev with the machine's real /dev/kvm in it.
      'namespaces = []',
      // Control groups and AppArmor are the machine's.
      'cgroup_controllers = []',
      'security_driver = "none"',
      // As on a network file system: there are no extended attributes to remember former owners in.
      'remember_owner = 0',
      // Memory in files belongs on tmpfs; by default it would be below /var/lib/libvirt.
      'memory_backing_dir = "/dev/shm"',
    ],
    'virtlogd.conf': [],
  };
}

/** Runs inside the host. /run is private already; users are those that Debian's package would make. */
const script = `
# Another libvirt than the system's, as if it were installed.
if [ -n "$OVERLAY" ]; then
  mount -t overlay overlay -o lowerdir="$OVERLAY:/usr" /usr
  # Without the system's drivers beside it.
  mount --bind "$OVERLAY/lib/x86_64-linux-gnu/libvirt" /usr/lib/x86_64-linux-gnu/libvirt
fi
for name in etc:/etc/libvirt lib:/var/lib/libvirt cache:/var/cache/libvirt log:/var/log/libvirt; do
  mkdir -p "$PRIVATE/\${name%%:*}" "\${name#*:}"
  mount --bind "$PRIVATE/\${name%%:*}" "\${name#*:}"
done
cp /etc/group "$PRIVATE/group"
cp /etc/passwd "$PRIVATE/passwd"
grep -q ^kvm: "$PRIVATE/group" || echo kvm:x:64054: >> "$PRIVATE/group"
grep -q ^libvirt-qemu: "$PRIVATE/group" || echo libvirt-qemu:x:64055:libvirt-qemu >> "$PRIVATE/group"
kvm=$(sed -n 's/^kvm:[^:]*:\\([0-9]*\\):.*/\\1/p' "$PRIVATE/group")
grep -q ^libvirt-qemu: "$PRIVATE/passwd" ||
  echo "libvirt-qemu:x:64055:$kvm:Libvirt Qemu:/var/lib/libvirt:/usr/sbin/nologin" >> "$PRIVATE/passwd"
mount --bind "$PRIVATE/group" /etc/group
mount --bind "$PRIVATE/passwd" /etc/passwd
# For QEMU as another user than root: libvirt gives it what is below, but not the way there.
mkdir -p -m 0711 /var/lib/libvirt/qemu/channel/target /var/lib/libvirt/qemu/save
virtlogd --daemon --pid-file /run/virtlogd.pid
libvirtd --daemon --pid-file /run/libvirtd.pid
chmod -f 0711 /var/lib/libvirt /var/lib/libvirt/qemu /var/lib/libvirt/qemu/channel /var/lib/libvirt/qemu/channel/target
`;

/** Starts the daemons of `host`, which must be set up otherwise; returns when they answer. */
export async function setUpLibvirt(host: HostName, version: LibvirtVersion, signal?: AbortSignal): Promise<void> {
  const directory = join(labPaths.hostDirectory(host), 'libvirt');
  await mkdir(join(directory, 'etc'), { recursive: true });
  for (const [name, lines] of Object.entries(configurationFiles(host))) {
    await writeFile(join(directory, 'etc', name), lines.map((line) => `${line}\n`).join(''));
  }
  const overlay = await libvirtOverlay(version, signal);
  const result = await labExec(host, ['sh', '-euc', script], {
    ...cancel(signal),
    env: { PRIVATE: directory, OVERLAY: overlay ?? '' },
    reject: false,
  });
  signal?.throwIfAborted();
  if (result.failed) {
    const log = await readFile(join(directory, 'log/libvirtd.log'), 'utf8').catch(() => '');
    const said = `${result.stderr || result.message}\n${log}`.trim();
    throw new LabError('VMMIG_LAB_COMMAND', `libvirt did not start on ${host}: ${said}`);
  }
}

/** Whether the daemons of both hosts run and take connections. */
export async function isLibvirtWhole(): Promise<boolean> {
  const sockets = ['/run/libvirt/libvirt-sock', '/run/libvirt/virtlogd-sock'];
  const probe = sockets.map((path) => `socat -u OPEN:/dev/null UNIX-CONNECT:${path}`).join(' && ');
  const results = await Promise.all(hostNames.map((host) => labExec(host, ['sh', '-c', probe], { reject: false })));
  return results.every((result) => !result.failed);
}
