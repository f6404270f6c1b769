import { execa } from 'execa';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  formatOptions,
  parseArgument,
  parseOptions,
  takesArgument,
} from '../../../hypervisor/direct/commandLine/options.js';
import { type CommandLineOverrides, deriveCommandLine } from '../../../hypervisor/index.js';
import { binaryOf, versions } from '../qemu.js';

const source = { cwd: '/home/operator', executable: '/usr/bin/qemu-system-x86_64', machineType: 'pc-q35-7.2' };

/** Derives from a command line without its binary; quotes keep blanks together. */
function derive(line: string, overrides: CommandLineOverrides = {}) {
  const args = line.match(/(?:'[^']*'|\S)+/g)?.map((item) => item.replaceAll("'", '')) ?? [];
  return deriveCommandLine({ ...source, argv: ['qemu-system-x86_64', ...args] }, overrides);
}

const args = (line: string, overrides?: CommandLineOverrides): string =>
  derive(line, overrides).argv.slice(1).join(' ');
const refusals = (line: string): string[] =>
  derive(line)
    .findings.filter(({ severity }) => severity === 'refuse')
    .map(({ message }) => message);
const warnings = (line: string): string[] =>
  derive(line)
    .findings.filter(({ severity }) => severity === 'warn')
    .map(({ message }) => message);

const proxmox =
  "-id 100 -name 'guest=web,debug-threads=on' -no-shutdown -chardev socket,id=qmp,path=/run/qemu/100.qmp,server=on,wait=off " +
  '-mon chardev=qmp,mode=control -pidfile /run/qemu/100.pid -daemonize -smbios type=1,uuid=5d2b -smp 4,sockets=1,cores=4 ' +
  '-nodefaults -vnc unix:/run/qemu/100.vnc,password=on -cpu host,+kvm_pv_eoi -m 4096 -machine type=q35+pve0 ' +
  "-drive 'file=/dev/pve/vm-100,if=none,id=drive-scsi0,format=raw,cache=none,aio=io_uring' " +
  '-device scsi-hd,bus=scsihw0.0,drive=drive-scsi0,id=scsi0 -netdev type=tap,id=net0,ifname=tap100i0,script=/var/lib/up,downscript=/var/lib/down';
const libvirtLike =
  '-name guest=db,debug-threads=on -S -machine pc-q35-6.2,usb=off,dump-guest-core=off,memory-backend=pc.ram -accel kvm ' +
  `-object '{"qom-type":"memory-backend-memfd","id":"pc.ram","share":true,"size":1073741824}' ` +
  '-chardev socket,id=charmonitor,path=/var/lib/db/monitor.sock,server=on,wait=off -mon chardev=charmonitor,id=monitor,mode=control ' +
  `-blockdev '{"driver":"file","filename":"/images/db.qcow2","node-name":"storage","auto-read-only":true}' ` +
  `-blockdev '{"node-name":"format","read-only":false,"driver":"qcow2","file":"storage"}' -incoming defer -no-user-config`;

describe('the destination', () => {
  test('waits for a migration and does not run by itself', () => {
    expect(args('-m 1G')).toBe('-m 1G -machine pc-q35-7.2 -S -incoming defer');
  });

  test('keeps everything else as it is and where it is', () => {
    expect(args("-name vm1 -drive 'file=/a b.img,if=none' disk.img -device virtio-blk-pci,drive=d0 -machine q35")).toBe(
      '-name vm1 -drive file=/a b.img,if=none disk.img -device virtio-blk-pci,drive=d0 -machine pc-q35-7.2 -S -incoming defer',
    );
  });

  test('does not inherit how the source came to its state', () => {
    expect(args('-incoming tcp:0:4444 -S -m 1G -daemonize -loadvm snap1 --incoming defer -preconfig -M pc')).toBe(
      '-m 1G -M pc-q35-7.2 -S -incoming defer',
    );
  });

  test.each([
    ['-machine q35,accel=tcg', '-machine pc-q35-7.2,accel=tcg'],
    ['-M q35', '-M pc-q35-7.2'],
    ['--machine type=pc,usb=off', '-machine type=pc-q35-7.2,usb=off'],
    ['-machine accel=tcg,type=pc', '-machine accel=tcg,type=pc-q35-7.2'],
    ['-machine accel=tcg', '-machine accel=tcg -machine pc-q35-7.2'],
    ['-machine memory-backend=m0 -machine q35', '-machine memory-backend=m0 -machine pc-q35-7.2'],
    ['-machine pc-q35-6.2,usb=off', '-machine pc-q35-7.2,usb=off'],
    ['-m 1', '-m 1 -machine pc-q35-7.2'],
  ])('is the machine that the source is, whatever %s stood for', (given, expected) => {
    expect(args(given)).toBe(`${expected} -S -incoming defer`);
  });

  test('uses the binary of its host, else the one that was run', () => {
    expect(derive('').argv[0]).toBe('/usr/bin/qemu-system-x86_64');
    expect(derive('', { binary: '/opt/qemu/bin/qemu' }).argv[0]).toBe('/opt/qemu/bin/qemu');
    expect(deriveCommandLine({ ...source, argv: ['/usr/bin/kvm'] }).argv[0]).toBe('/usr/bin/kvm');
  });

  test('takes strings replaced, options appended or a command line of its own', () => {
    const replacements = [
      ['/images', '/mnt'],
      ['/mnt/a', '/mnt/b'],
    ] as const;
    expect(args('-hda /images/a.img -machine q35', { replacements, extra: ['-vnc', ':1'] })).toBe(
      '-hda /mnt/b.img -machine pc-q35-7.2 -vnc :1 -S -incoming defer',
    );
    const own = derive('-m 1G', { argv: ['qemu-kvm', '-m', '2G', '-machine', 'q35'] });
    expect(own.argv).toEqual(['qemu-kvm', '-m', '2G', '-machine', 'pc-q35-7.2', '-S', '-incoming', 'defer']);
  });

  test('moves on from there with the same command line', () => {
    for (const line of [proxmox, libvirtLike, '-L /fw -machine q35 -L /fw -L /bios']) {
      const once = derive(line).argv;
      expect(deriveCommandLine({ ...source, argv: once }).argv).toEqual(once);
    }
  });

  test('command lines of management tools pass', () => {
    expect(refusals(proxmox)).toEqual([]);
    expect(refusals(libvirtLike)).toEqual([]);
  });
});

describe('refuses', () => {
  test.each([
    ['-snapshot', /temporary files/],
    ['-drive file=/a.img,snapshot=on', /temporary file/],
    ['-readconfig vm.cfg', /cannot be checked/],
    ['-netdev tap,id=n0,fd=27', /descriptors/],
    ['-netdev tap,id=n0,ifname=t0,vhost=on,vhostfd=31', /descriptors/],
    ['-netdev tap,id=n0,fds=27:28', /descriptors/],
    [`-netdev '{"type":"tap","fd":"27","id":"n0"}'`, /descriptors/],
    ['-chardev socket,id=mon,fd=5,server=on', /descriptors/],
    ['-add-fd fd=3,set=2', /descriptors/],
    ['-drive file=/dev/fdset/2,format=raw', /descriptors/],
    [`-blockdev '{"driver":"file","filename":"/dev/fdset/2"}'`, /descriptors/],
    ['-object memory-backend-file,id=m,mem-path=/proc/self/fd/9,size=1G', /descriptors/],
    ['-curses', /no terminal/],
    ['-display curses', /no terminal/],
  ])('%s', (line, reason) => {
    expect(refusals(line)).toEqual([expect.stringMatching(reason)]);
  });

  test.each([
    "-append 'root=/dev/vda fd=3 quiet'",
    '-name fd=1',
    '-device vhost-vsock-pci,guest-cid=3',
    '-netdev user,id=n0',
    '-drive file=/a.img,snapshot=off',
  ])('nothing in %s', (line) => expect(refusals(line)).toEqual([]));

  test('every reason at once', () => {
    expect(refusals('-snapshot -readconfig a -netdev tap,fd=3')).toHaveLength(3);
  });
});

test.each([
  '-nographic',
  '-serial stdio',
  '-serial mon:stdio',
  '-monitor stdio',
  '-qmp stdio',
  '-chardev stdio,id=c0,signal=off',
])('warns that %s has no terminal on the destination', (line) => {
  expect(warnings(line)).toEqual([expect.stringMatching(/terminal/)]);
  expect(refusals(line)).toEqual([]);
});

test('warns of a display that needs a desktop', () => {
  expect(warnings('-display gtk,gl=on')).toHaveLength(1);
  expect(warnings('-display none')).toEqual([]);
});

describe('what must be there', () => {
  const required = (line: string): string[] =>
    derive(line).requiredPaths.map(({ path, kind, access, option }) => `${option} ${kind} ${access} ${path}`);

  test.each([
    [
      '-kernel vmlinuz -initrd /boot/initrd',
      ['-kernel existing read /home/operator/vmlinuz', '-initrd existing read /boot/initrd'],
    ],
    ['-hda /a.img', ['-hda existing write /a.img']],
    ['/a.img', ['/a.img existing write /a.img']],
    ['-cdrom /a.iso', ['-cdrom existing read /a.iso']],
    ['-drive file=/a,,b.img,format=raw', ['-drive existing write /a,b.img']],
    ['-drive file=/a.img,readonly=on', ['-drive existing read /a.img']],
    ['-drive file=nbd:unix:/run/nbd,format=raw -drive file=rbd:pool/image', []],
    ['-drive if=ide,media=cdrom', []],
    ['-drive if=ide,media=cdrom,file=/a.iso', ['-drive existing read /a.iso']],
    [
      '-blockdev driver=raw,node-name=n,read-only=on,file.driver=file,file.filename=/b.img',
      ['-blockdev existing read /b.img'],
    ],
    [
      `-blockdev '{"driver":"qcow2","file":{"driver":"file","filename":"/c.qcow2"},"backing":{"driver":"raw","file":{"driver":"file","filename":"/base.img"}}}'`,
      ['-blockdev existing write /c.qcow2', '-blockdev existing read /base.img'],
    ],
    ['-chardev socket,id=c,path=/run/c.sock,server=on,wait=off', ['-chardev created write /run/c.sock']],
    ['-chardev socket,id=c,path=/run/vhost.sock', ['-chardev existing write /run/vhost.sock']],
    ['-qmp unix:/run/q.sock,server,nowait', ['-qmp created write /run/q.sock']],
    ['-monitor unix:/run/m.sock', ['-monitor existing write /run/m.sock']],
    ['-serial file:/var/log/vm1', ['-serial created write /var/log/vm1']],
    ['-chardev file,id=f,path=/log/a', ['-chardev created write /log/a']],
    ['-serial null -serial none -parallel pty -monitor vc', []],
    ['-serial /dev/ttyS1', ['-serial existing write /dev/ttyS1']],
    ['-chardev pty,id=c,logfile=/log/c', ['-chardev created write /log/c']],
    ['-pidfile /run/vm1.pid -D /log/qemu', ['-pidfile created write /run/vm1.pid', '-D created write /log/qemu']],
    ['-object memory-backend-file,id=m0,size=1G,mem-path=/dev/shm/m0', ['-object created write /dev/shm/m0']],
    ['-object rng-random,id=r,filename=/dev/urandom', ['-object existing read /dev/urandom']],
    ['-netdev tap,id=n,script=/etc/up,downscript=no', ['-netdev existing read /etc/up']],
    ['-fsdev local,id=f,path=/srv,security_model=none', ['-fsdev existing read /srv']],
    ['-bios bios.bin', []],
    ['-bios /fw/OVMF.fd -L /usr/share/qemu', ['-bios existing read /fw/OVMF.fd', '-L existing read /usr/share/qemu']],
    ['-vnc unix:/run/vnc', ['-vnc created write /run/vnc']],
  ])('for %s', (line, expected) => expect(required(line)).toEqual(expected));

  test('the working directory counts where a path is relative to it', () => {
    expect(derive('-hda a.img')).toMatchObject({ cwd: '/home/operator', cwdRequired: true });
    expect(derive('-hda /a.img').cwdRequired).toBe(false);
  });
});

test.each([
  ['-qmp unix:/run/q.sock,server=on,wait=off', ['/run/q.sock']],
  ['-chardev socket,id=c,path=/run/c.sock,server=on', ['/run/c.sock']],
  ['-chardev socket,id=c,path=/run/c.sock', []],
  ['-monitor tcp:127.0.0.1:4444,server,nowait -serial telnet::5555,server=on', [4444, 5555]],
  ['-chardev socket,id=c,host=localhost,port=6000,server=on', [6000]],
  ['-serial tcp:10.0.0.1:7000', []],
  ['-vnc :3 -vnc 127.0.0.1:4,password=on', [5903, 5904]],
  ['-vnc none -vnc unix:/run/vnc -vnc viewer:1,reverse=on', []],
  ['-spice port=5930,tls-port=5931,disable-ticketing=on', [5930, 5931]],
  ['-s -gdb tcp::1235', [1234, 1235]],
  ['-nic user,hostfwd=tcp::2222-:22,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp::53-:53', [2222, 8080]],
])('%s listens at %j', (line, expected) => {
  const { listeners } = derive(line);
  expect(listeners.map((one) => (one.kind === 'unix' ? one.path : one.port))).toEqual(expected);
});

test('arguments are taken apart as QEMU does', () => {
  expect(parseArgument('tap,id=n,,0,vhost,script=a=b')).toEqual({
    implied: 'tap',
    entries: [
      ['id', 'n,0'],
      ['vhost', 'on'],
      ['script', 'a=b'],
    ],
  });
  expect(parseArgument('{"driver":"tap","queues":[1,{"a":null}]}').entries).toEqual([
    ['driver', 'tap'],
    ['queues.0', '1'],
    ['queues.1.a', 'null'],
  ]);
  expect(parseArgument('{broken').implied).toBe('{broken');
});

test('any command line is taken apart and put together again unchanged, and derived without failing', () => {
  const name = fc.constantFrom(
    '-m',
    '-drive',
    '-S',
    '-s',
    '-device',
    '-snapshot',
    '-incoming',
    '-machine',
    '-x-unknown',
    '-chardev',
    '-nographic',
  );
  const item = fc.oneof(
    name,
    fc.string(),
    fc.constantFrom('q35', 'file=a,if=none', '{"a":1}', 'type=pc,x=y', ',', '=', ''),
  );
  fc.assert(
    fc.property(fc.array(item, { maxLength: 12 }), (items) => {
      const options = parseOptions(items);
      expect(parseOptions(formatOptions(options))).toEqual(options);
      const once = deriveCommandLine({ ...source, argv: ['/qemu', ...items] });
      expect(once.argv.slice(-3)).toEqual(['-S', '-incoming', 'defer']);
      expect(once.argv.filter((one) => one === 'defer').length).toBeGreaterThanOrEqual(1);
    }),
  );
});

test.each(versions)('QEMU %s agrees on which options take an argument', async (version) => {
  const binary = await binaryOf(version);
  const { stdout } = await execa(binary, ['-help']);
  const names = [...new Set([...stdout.matchAll(/^--?(\w[\w-]*)/gm)].map(([, name]) => name!))];
  expect(names.length).toBeGreaterThan(80);
  // All options are looked up before `-version` ends QEMU: one that is no argument of another must be known.
  const withArguments = names.filter(takesArgument).flatMap((name) => [`-${name}`, '-no-such-option']);
  expect((await execa(binary, ['-version', ...withArguments])).stdout).toContain(`version ${version}`);
  for (const name of names.filter((one) => !takesArgument(one))) {
    const { stderr } = await execa(binary, ['-version', `-${name}`, '-no-such-option'], { reject: false });
    expect(stderr, name).toContain('-no-such-option: invalid option');
  }
});
