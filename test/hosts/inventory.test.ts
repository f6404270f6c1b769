import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  addHost,
  diskPathOn,
  InventoryError,
  loadInventory,
  parseInventory,
  removeHost,
  resolveHost,
} from '../../hosts/inventory.js';
import { makeTempDir } from './sshd.js';

const FULL = `# our two hosts
hosts:
  hostA:
    ssh: root@10.0.0.1:22
    sshConfig: ssh/config
    identityFile: ~/.ssh/migration
    knownHosts: /etc/vmmig/known_hosts
    connectTimeout: 5s
    address: 192.0.2.1
    linkPorts: 49152-49215
    bandwidth: 200mbit
    vmmig: sudo -n vmmig
    stateDir: /srv/vmmig
    runDir: /run/v
    qemu: /opt/qemu/bin/qemu-system-x86_64
    hostname: a.example
  hostB: {}   # all defaults

guests:
  vm1:
    host: hostA
    qmp: /run/vm1.qmp
    agent: /run/vm1.agent
    disks:
      drive0: { path: /shared/vm1.img, paths: { hostB: /mnt/vm1.img } }
    destination:
      options: [-name, moved]
      replace: { br0: br1 }
`;

let directory: string;
let file: string;
beforeEach(() => {
  directory = makeTempDir('inventory');
  file = join(directory, 'inventory.yaml');
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function issuesOf(text: string): string[] {
  try {
    parseInventory(text, '/inventory.yaml');
  } catch (error) {
    expect(error).toBeInstanceOf(InventoryError);
    expect((error as InventoryError).code).toBe('VMMIG_INVENTORY_INVALID');
    return (error as InventoryError).message.split('\n');
  }
  throw new Error('it was accepted');
}

describe('an inventory', () => {
  test('gives hosts and guests with everything the file says', () => {
    const { hosts, guests, exists } = parseInventory(FULL, '/etc/vmmig/inventory.yaml');
    expect(exists).toBe(true);
    expect(hosts.get('hostA')).toEqual({
      name: 'hostA',
      ssh: 'root@10.0.0.1:22',
      sshConfig: '/etc/vmmig/ssh/config',
      identityFile: join(homedir(), '.ssh/migration'),
      knownHosts: '/etc/vmmig/known_hosts',
      connectTimeoutMs: 5000,
      address: '192.0.2.1',
      linkPorts: { first: 49_152, last: 49_215 },
      bandwidthBitsPerSecond: 200_000_000,
      vmmig: ['sudo', '-n', 'vmmig'],
      stateDir: '/srv/vmmig',
      runDir: '/run/v',
      qemu: '/opt/qemu/bin/qemu-system-x86_64',
      hostname: 'a.example',
    });
    const vm1 = guests.get('vm1');
    expect(vm1).toEqual({
      name: 'vm1',
      host: 'hostA',
      qmp: '/run/vm1.qmp',
      agent: '/run/vm1.agent',
      disks: { drive0: { path: '/shared/vm1.img', paths: { hostB: '/mnt/vm1.img' } } },
      destination: { options: ['-name', 'moved'], replace: { br0: 'br1' } },
    });
    expect(diskPathOn(vm1!.disks.drive0!, 'hostA')).toBe('/shared/vm1.img');
    expect(diskPathOn(vm1!.disks.drive0!, 'hostB')).toBe('/mnt/vm1.img');
  });

  test('fills in defaults', () => {
    const { hosts, guests } = parseInventory('hosts: { h: {} }\nguests: { g: { host: h, qmp: /q } }', '/i.yaml');
    expect(hosts.get('h')).toEqual({
      name: 'h',
      ssh: 'h',
      vmmig: ['vmmig'],
      stateDir: '/var/lib/vmmig',
      runDir: '/run/vmmig',
      hostname: 'h',
    });
    expect(guests.get('g')).toEqual({
      name: 'g',
      host: 'h',
      qmp: '/q',
      disks: {},
      destination: { options: [], replace: {} },
    });
  });

  test.each(['', '# nothing\n', 'hosts:\nguests:\n'])('may be empty: %j', (text) => {
    expect(parseInventory(text, '/i.yaml').hosts.size).toBe(0);
  });

  test('has errors with file, line and field, all of them', () => {
    const text = FULL.replace('49152-49215', '9-8')
      .replace('200mbit', 'fast')
      .replace('connectTimeout: 5s', 'connectTimeout: 5')
      .replace('runDir: /run/v', 'runDir: run/v')
      .replace('qemu:', 'quemu:')
      .replace('    qmp: /run/vm1.qmp\n', '');
    expect(issuesOf(text)).toEqual([
      '/inventory.yaml:8: hosts.hostA.connectTimeout: expected a duration such as 10s',
      '/inventory.yaml:10: hosts.hostA.linkPorts: expected a port or a range such as 49152-49215, got "9-8"',
      '/inventory.yaml:11: hosts.hostA.bandwidth: expected a rate such as 200mbit, got "fast"',
      '/inventory.yaml:14: hosts.hostA.runDir: must be an absolute path',
      '/inventory.yaml:15: hosts.hostA.quemu: unknown field',
      '/inventory.yaml:20: guests.vm1.qmp: is required',
    ]);
  });

  test('names hosts that guests refer to and that are not there', () => {
    expect(issuesOf(FULL.replace('hostB: {}', 'hostC: {}').replace('host: hostA', 'host: hostX'))).toEqual([
      '/inventory.yaml:21: guests.vm1.host: no host "hostX" in hosts',
      '/inventory.yaml:25: guests.vm1.disks.drive0.paths.hostB: no host "hostB" in hosts',
    ]);
  });

  test.each([
    ['hosts: [', /^\/inventory\.yaml:1: /],
    ['hosts:\n  a: {}\n  a: {}\n', /^\/inventory\.yaml:3: .*unique/],
    ['- hosts', /^\/inventory\.yaml: /],
    ['hosts:\n  -x: {}\n', /^\/inventory\.yaml:2: hosts\.-x: a name has/],
    ['hosts:\n  a: { ssh: "a b" }\n', /^\/inventory\.yaml:2: hosts\.a\.ssh: expected \[user@\]host/],
    ['host:\n  a: {}\n', /^\/inventory\.yaml:1: host: unknown field/],
  ])('that is malformed says where: %j', (text, message) => {
    expect(issuesOf(text)[0]).toMatch(message);
  });

  test('cannot be made huge by YAML aliases', () => {
    const bomb = ['a: &a [x,x,x,x,x,x,x,x,x]'];
    for (let level = 1; level < 10; level++) {
      const [name, inner] = [String.fromCharCode(97 + level), String.fromCharCode(96 + level)];
      bomb.push(`${name}: &${name} [${Array(9).fill(`*${inner}`).join(',')}]`);
    }
    expect(() => parseInventory(bomb.join('\n'), '/inventory.yaml')).toThrow(InventoryError);
  });
});

describe('the inventory file', () => {
  test('is the one asked for, else VMMIG_INVENTORY, else in the XDG configuration directory, else in ~/.config', async () => {
    mkdirSync(join(directory, 'vmmig'));
    const byXdg = join(directory, 'vmmig', 'inventory.yaml');
    for (const path of [file, `${file}.env`, byXdg]) writeFileSync(path, FULL);
    const env = { VMMIG_INVENTORY: `${file}.env`, XDG_CONFIG_HOME: directory };
    expect((await loadInventory({ path: file, env })).path).toBe(file);
    expect((await loadInventory({ env })).path).toBe(`${file}.env`);
    expect((await loadInventory({ env: { XDG_CONFIG_HOME: directory } })).path).toBe(byXdg);
    expect(await loadInventory({ env: { HOME: directory } })).toMatchObject({
      path: join(directory, '.config/vmmig/inventory.yaml'),
      exists: false,
    });
  });

  test('that was asked for and is not there is VMMIG_INVENTORY_NOT_FOUND', async () => {
    for (const options of [{ path: file }, { env: { VMMIG_INVENTORY: file } }]) {
      await expect(loadInventory(options)).rejects.toMatchObject({ code: 'VMMIG_INVENTORY_NOT_FOUND', path: file });
    }
  });

  test('keeps comments and order when a host is added, replaced and removed', async () => {
    writeFileSync(file, FULL);
    await addHost('hostC', { ssh: 'root@10.0.0.3', bandwidth: '1gbit' }, { path: file });
    const added = readFileSync(file, 'utf8');
    expect(added).toContain('# our two hosts\n');
    expect(added).toContain('# all defaults\n');
    expect((await loadInventory({ path: file })).hosts.get('hostC')).toMatchObject({ bandwidthBitsPerSecond: 1e9 });
    await addHost('hostC', { ssh: 'root@10.0.0.4' }, { path: file });
    expect((await loadInventory({ path: file })).hosts.get('hostC')).toMatchObject({ ssh: 'root@10.0.0.4' });
    await removeHost('hostC', { path: file });
    const { hosts, guests } = await loadInventory({ path: file });
    expect([...hosts.keys(), ...guests.keys()]).toEqual(['hostA', 'hostB', 'vm1']);
    expect(readFileSync(file, 'utf8')).toContain('# all defaults\n');
  });

  test('is made when the first host is added, for its owner only', async () => {
    const path = join(directory, 'new', 'inventory.yaml');
    await addHost('hostA', { ssh: 'root@10.0.0.1' }, { path });
    expect((await loadInventory({ path })).hosts.get('hostA')?.ssh).toBe('root@10.0.0.1');
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readdirSync(join(directory, 'new'))).toEqual(['inventory.yaml']);
  });

  test('keeps its mode, and stays where a symbolic link leads', async () => {
    const real = join(directory, 'real.yaml');
    writeFileSync(real, 'hosts:\n');
    chmodSync(real, 0o640);
    symlinkSync(real, file);
    await addHost('hostA', {}, { path: file });
    expect(lstatSync(file).isSymbolicLink()).toBe(true);
    expect(statSync(real).mode & 0o777).toBe(0o640);
    expect(readFileSync(real, 'utf8')).toContain('hostA');
  });

  test('stays as it is when the change would make it invalid', async () => {
    writeFileSync(file, FULL);
    await expect(removeHost('hostA', { path: file })).rejects.toThrow('guests.vm1.host: no host "hostA"');
    await expect(removeHost('hostX', { path: file })).rejects.toThrow('hosts.hostX: there is no such host');
    await expect(addHost('hostC', { bandwidth: 'fast' }, { path: file })).rejects.toThrow('hosts.hostC.bandwidth');
    await expect(addHost('a b', {}, { path: file })).rejects.toThrow('a name has');
    expect(readFileSync(file, 'utf8')).toBe(FULL);
  });
});

describe('a host to move to', () => {
  const inventory = parseInventory(FULL, '/inventory.yaml');

  test('is one of the inventory', () => {
    expect(resolveHost(inventory, 'hostA')).toBe(inventory.hosts.get('hostA'));
  });

  test('or any SSH destination, with defaults', () => {
    expect(resolveHost(inventory, 'root@10.0.0.9:2222')).toMatchObject({
      name: '10.0.0.9',
      ssh: 'root@10.0.0.9:2222',
      vmmig: ['vmmig'],
      hostname: '10.0.0.9',
    });
  });

  test('and nothing else', () => {
    expect(() => resolveHost(inventory, '-oProxyCommand=id')).toThrow(/neither a host of the inventory .*hostA, hostB/);
  });
});
