/**
 * What the debian guest is made of: a change here, and only here, builds it anew.
 *
 * Left out or masked is what costs an emulated processor seconds of every boot, or works behind a test's back (timers).
 */

/** Sizes. Root is in two pieces of these sizes, with another volume between them. */
export const layout = { bootMiB: 96, extentMiB: 4, rootMiB: [1200, 800], spareMiB: 80, servedMiB: 96 } as const;

export const packages = [
  'dbus',
  'e2fsprogs',
  'initramfs-tools',
  'iproute2',
  'kmod',
  'linux-image-cloud-amd64',
  'lvm2',
  'nginx-light',
  'postgresql',
  'procps',
  'qemu-guest-agent',
  'systemd-sysv',
  'udev',
  'xfsprogs',
];

const masked = [
  'apt-daily-upgrade.timer',
  'apt-daily.timer',
  'blk-availability.service',
  'dev-hugepages.mount',
  'dev-mqueue.mount',
  'dm-event.socket',
  'dpkg-db-backup.timer',
  'e2scrub_all.timer',
  'e2scrub_reap.service',
  'fstrim.timer',
  'getty.target',
  'lvm2-lvmpolld.socket',
  'lvm2-monitor.service',
  'serial-getty@ttyS0.service',
  'sys-fs-fuse-connections.mount',
  'sys-kernel-debug.mount',
  'sys-kernel-tracing.mount',
  'systemd-binfmt.service',
  'systemd-logind.service',
  'systemd-pstore.service',
  'systemd-tmpfiles-clean.timer',
  'systemd-update-utmp.service',
];

const fstab = `/dev/mapper/debian-root / ext4 defaults 0 0
LABEL=boot /boot ext4 defaults 0 0
LABEL=srv /srv xfs defaults 0 0
`;

/** Before the packages are configured. */
export const filesBefore: Record<string, string> = {
  'etc/dpkg/dpkg.cfg.d/lab': `force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/man/*
`,
  'etc/initramfs-tools/conf.d/lab': 'MODULES=list\nCOMPRESS=gzip\nRESUME=none\n',
  'etc/initramfs-tools/modules': 'virtio_pci\nvirtio_blk\ndm_mod\n',
  // The volume group is not activated by itself, so that no machine activates it while it is being made.
  'etc/initramfs-tools/scripts/local-top/volumes': `#!/bin/sh
[ "$1" = prereqs ] && { echo udev; exit 0; }
lvm vgchange -ay --sysinit debian >/dev/null
`,
  'etc/postgresql-common/createcluster.conf': "initdb_options = '--data-checksums'\n",
  // Nothing starts while it is being built.
  'usr/sbin/policy-rc.d': '#!/bin/sh\nexit 101\n',
};

/** After that. Executables are those in a bin directory. */
export const filesAfter: Record<string, string> = {
  'etc/fstab': fstab,
  'etc/hostname': 'debian\n',
  'etc/hosts': '127.0.0.1 localhost debian\n',
  'etc/machine-id': '6c616264656269616e00000000000001\n',
  'etc/nginx/sites-available/default': `server {
  listen 80 default_server;
  root /srv/www;
  access_log off;
}
`,
  // Instead of the building machine's.
  'etc/resolv.conf': '# There is no name server.\n',
  'etc/systemd/journald.conf.d/lab.conf': '[Journal]\nStorage=volatile\n',
  'etc/systemd/system/lab-network.service': `[Unit]
Before=nginx.service postgresql.service
[Service]
Type=oneshot
ExecStart=/usr/local/bin/lab-network
[Install]
WantedBy=multi-user.target
`,
  // Last, so that a guest that answers has all its services.
  'etc/systemd/system/lab-shell.service': `[Unit]
After=multi-user.target postgresql@15-main.service nginx.service
[Service]
ExecStart=/usr/local/bin/command-server /dev/virtio-ports/org.vmmig.lab.0
Environment=HOME=/root
Restart=always
RestartSec=1
[Install]
WantedBy=graphical.target
`,
  'etc/systemd/system/lab-counter.service': `[Service]
ExecStart=/usr/local/bin/counter
[Install]
WantedBy=multi-user.target
`,
  // The kernel's command line tells the address: lab.address=ADDRESS/BITS
  'usr/local/bin/lab-network': `#!/bin/sh
for word in $(cat /proc/cmdline); do
  case $word in lab.address=*) ip address add "\${word#*=}" dev eth0 && ip link set eth0 up ;; esac
done
`,
};

/** Runs in the guest's tree when all is there. Client and database are called lab; the password is the network. */
export const finish = `
systemctl mask ${masked.join(' ')}
systemctl enable lab-network lab-shell lab-counter
systemctl set-default graphical.target
rm -f /etc/nginx/sites-enabled/* /usr/sbin/policy-rc.d
ln -s ../sites-available/default /etc/nginx/sites-enabled/
echo 'host all all 10.77.3.0/24 trust' >> /etc/postgresql/15/main/pg_hba.conf
ln -s /srv/www /data
mkdir -p /srv
pg_conftool 15 main set listen_addresses '*'
pg_conftool 15 main set shared_buffers 64MB
pg_ctlcluster 15 main start
su postgres -c 'createuser --superuser lab && createdb --owner lab lab && /usr/lib/postgresql/15/bin/pgbench -q -i -s 5 -U postgres lab'
pg_ctlcluster 15 main stop
apt-get clean
rm -rf /var/lib/apt/lists/* /var/log/*.log /var/log/apt
`;
