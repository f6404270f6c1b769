/** What takes minutes, and the first time Debian's mirror: only with VMMIG_TEST_FULL. */
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type GuestShell,
  type LabGuestHandle,
  labDown,
  labExec,
  labGuestShell,
  labGuestStart,
  labUp,
  virsh,
} from '../../lab/index.js';
import { useOwnLab } from './temporary.js';

const minutes = 60_000;

/** Sends a request every 200 ms over one connection until its input ends; then prints how many were answered. */
const client = `
const socket = require('node:net').connect(80, process.argv[1]);
let answers = 0, text = '';
const ask = () => socket.write('HEAD /SHA256SUMS HTTP/1.1\\r\\nHost: guest\\r\\n\\r\\n');
socket.on('connect', ask).on('data', (data) => {
  text += data;
  if (!text.endsWith('\\r\\n\\r\\n')) return;
  if (text.startsWith('HTTP/1.1 200')) answers++;
  text = '';
  setTimeout(ask, 200);
});
socket.on('close', () => { console.log('closed after', answers); process.exit(1); });
process.stdin.resume().on('end', () => { console.log(answers); process.exit(0); });
`;

describe.skipIf(!process.env.VMMIG_TEST_FULL)('the debian guest', () => {
  let directory: Awaited<ReturnType<typeof useOwnLab>>;

  beforeAll(async () => {
    directory = await useOwnLab();
    await labUp({ rttMs: 1, rateBps: 1e9, libvirt: '9.0' });
  });

  afterAll(async () => {
    await labDown();
    await directory[Symbol.asyncDispose]();
  });

  it('boots without libvirt, with all its services', { timeout: 15 * minutes }, async () => {
    const guest = await labGuestStart('direct', 'hostB', { kind: 'debian', memoryMiB: 512, diskFormat: 'qcow2' });
    await using shell = await labGuestShell('direct', 'hostB');
    await expectServices(guest, shell);
    // The agent's answer is lost when the connection is half closed before it.
    const { stdout } = await execa('socat', ['-t', '3', '-', `UNIX-CONNECT:${guest.qgaPath},shut-none`], {
      input: '{"execute":"guest-ping"}\n',
    });
    expect(JSON.parse(stdout)).toEqual({ return: {} });
    process.kill(guest.pid, 'SIGKILL');
  });

  it('boots as a domain, and keeps its clients when it moves', { timeout: 15 * minutes }, async () => {
    const guest = await labGuestStart('domain', 'hostA', { kind: 'debian', memoryMiB: 512, libvirt: true });
    {
      await using shell = await labGuestShell('domain', 'hostA');
      await expectServices(guest, shell);
    }
    const ping = ['qemu-agent-command', 'domain', '{"execute":"guest-ping"}'];
    expect(JSON.parse(await virsh('hostA', ping))).toEqual({ return: {} });
    const asking = labExec('wan', [process.execPath, '-e', client, guest.address!], { stdin: 'pipe', reject: false });
    try {
      await virsh('hostA', ['migrate', '--live', '--unsafe', 'domain', 'qemu+ssh://hostB/system']);
      await using shell = await labGuestShell('domain', 'hostB');
      expect(await answered(guest)).toBe(true);
      const mac = await shell.output('cat /sys/class/net/eth0/address');
      const learned = (await labExec('wan', ['bridge', 'fdb', 'show', 'br', 'guests'])).stdout;
      expect(learned).toContain(`${mac} dev to-guests-b `);
      expect(await shell.output('checksum', { timeoutMs: minutes })).toMatch(/ failed 0$/);
    } finally {
      asking.stdin.end();
    }
    const ended = await asking;
    expect(ended.stdout).toMatch(/^\d+$/);
    expect(Number(ended.stdout)).toBeGreaterThan(10);
    expect(JSON.parse(await virsh('hostB', ping))).toEqual({ return: {} });
  });
});

async function expectServices(guest: LabGuestHandle, shell: GuestShell): Promise<void> {
  expect(await shell.output('systemctl is-system-running')).toBe('running');
  const disks = 'findmnt --real --noheadings --list -o TARGET,SOURCE,FSTYPE | tr -s " "';
  expect((await shell.output(disks)).split('\n').sort()).toEqual([
    '/ /dev/mapper/debian-root ext4',
    '/boot /dev/vda1 ext4',
    '/srv /dev/vdb xfs',
  ]);
  expect((await shell.output('dmsetup table debian-root')).split('\n')).toHaveLength(2);
  const psql = (sql: string) => shell.output(`su postgres -c "psql -qAt lab -c '${sql}'"`, { timeoutMs: 60_000 });
  expect(await psql('select count(*) from pgbench_accounts')).toBe('500000');
  expect(await psql('show data_checksums')).toBe('on');
  expect(await answered(guest)).toBe(true);
  // PostgreSQL's answer to "may we speak TLS" (protocol 3.0, SSLRequest).
  const request = `printf '\\000\\000\\000\\010\\004\\322\\026\\057' | socat -t 5 - TCP:${guest.address}:5432`;
  expect((await labExec('wan', ['sh', '-c', request])).stdout).toMatch(/^[SN]$/);
}

async function answered(guest: LabGuestHandle): Promise<boolean> {
  const request = `printf 'GET /SHA256SUMS HTTP/1.0\\r\\n\\r\\n' | socat -t 10 - TCP:${guest.address}:80`;
  const { stdout } = await labExec('wan', ['sh', '-c', request]);
  return /^HTTP\/1.1 200/.test(stdout) && /[0-9a-f]{64} {2}files\/random-000/.test(stdout);
}
