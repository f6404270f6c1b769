/** What a host needs to take part in migrations, and whether it has it. */
import { access, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { qemuConfinement, Virsh } from '../hypervisor/index.js';
import type { Check } from './protocol.js';

const libvirtTimeoutMs = 5_000;
const appArmorRules = ['/etc/apparmor.d/local/abstractions/libvirt-qemu', '/etc/apparmor.d/abstractions/libvirt-qemu'];

export async function hostChecks(): Promise<Check[]> {
  const checks = await Promise.all([
    nodeVersion(),
    root(),
    qemu(),
    acceleration(),
    directReads(),
    qemuNbd(),
    agentBinary(),
  ]);
  return [...checks, ...(await libvirt())];
}

async function nodeVersion(): Promise<Check> {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const ok = major > 20 || (major === 20 && minor >= 19);
  return required('Node.js', ok, `version ${process.versions.node}`, 'install Node.js 20.19 or newer');
}

async function root(): Promise<Check> {
  const isRoot = process.getuid?.() === 0;
  const detail = isRoot ? 'running as root' : `running as user ${process.getuid?.()}`;
  return recommended(
    'Permissions',
    isRoot,
    detail,
    "run as root, or as the user that QEMU's sockets and images belong to",
  );
}

async function qemu(): Promise<Check> {
  const remedy = 'install QEMU (Debian: qemu-system-x86), or name its path as `qemu:` of the host in the inventory';
  try {
    const { execa } = await import('execa');
    const { stdout } = await execa('qemu-system-x86_64', ['--version']);
    return required('QEMU', true, stdout.split('\n')[0] ?? '', remedy);
  } catch {
    return required('QEMU', false, 'qemu-system-x86_64 is not on the PATH', remedy);
  }
}

/** A host without it needs none. */
async function libvirt(): Promise<Check[]> {
  await using virsh = new Virsh('qemu:///system');
  try {
    const version = await virsh.run(['version', '--daemon'], { timeoutMs: libvirtTimeoutMs });
    const detail = /^Running against daemon: (.*)$/m.exec(version)?.[1] ?? 'it answers';
    return [recommended('libvirt', true, detail, ''), ...(await confinement(virsh))];
  } catch (thrown) {
    const { message } = thrown as Error;
    if (/virsh: not found|virsh: command not found/.test(message)) return [];
    const remedy =
      'start libvirtd (or virtqemud), and run vmmig as root; without libvirt only its domains cannot be moved';
    return [recommended('libvirt', false, message, remedy)];
  }
}

/** What keeps libvirt's QEMUs from files, the migration's socket among them. */
async function confinement(virsh: Virsh): Promise<Check[]> {
  const models = await qemuConfinement(virsh, { timeoutMs: libvirtTimeoutMs });
  const checks: Check[] = [];
  if (models.includes('apparmor')) {
    const rules = await Promise.all(appArmorRules.map((path) => readFile(path, 'utf8').catch(() => '')));
    const isAllowed = rules.some((text) => text.includes('/var/lib/libvirt/qemu/vmmig-*/stream'));
    const detail = isAllowed ? 'guests may have a migration’s socket' : 'guests may be kept from a migration’s socket';
    const remedy = `if a move fails with "Permission denied": echo '/var/lib/libvirt/qemu/vmmig-*/stream rwk,' >> ${appArmorRules[0]}`;
    checks.push(recommended('AppArmor', isAllowed, detail, remedy));
  }
  if (models.includes('selinux'))
    checks.push(recommended('SELinux', true, 'confines guests; if a move fails: ausearch -m avc -ts recent', ''));
  return checks;
}

/** /dev/kvm alone says little: it can be there without the processor's virtualisation. */
async function acceleration(): Promise<Check> {
  const flags = await readFile('/proc/cpuinfo', 'utf8').catch(() => '');
  const hasDevice = await access('/dev/kvm').then(
    () => true,
    () => false,
  );
  const ok = hasDevice && /^flags\s*:.*\b(vmx|svm)\b/m.test(flags);
  const detail = ok ? 'KVM' : 'no hardware virtualisation: guests run under TCG';
  return recommended('Acceleration', ok, detail, "enable the processor's virtualisation, nested where this is a guest");
}

async function directReads(): Promise<Check> {
  try {
    await import('koffi');
    return required('System calls', true, 'koffi loads', 'reinstall vmmig');
  } catch (error) {
    return required('System calls', false, (error as Error).message, 'reinstall vmmig: its native parts are missing');
  }
}

async function qemuNbd(): Promise<Check> {
  const remedy = 'install it (Debian: qemu-utils), or page cache of disks that are not raw is sent to this host';
  try {
    const { execa } = await import('execa');
    const [{ stdout }] = await Promise.all([execa('qemu-nbd', ['--version']), execa('setpriv', ['--version'])]);
    return recommended('qemu-nbd', true, stdout.split('\n')[0] ?? '', remedy);
  } catch {
    return recommended('qemu-nbd', false, 'qemu-nbd or setpriv is not on the PATH', remedy);
  }
}

async function agentBinary(): Promise<Check> {
  const path = fileURLToPath(new URL('../guest-agent/vmmig-agent', import.meta.url));
  const ok = await access(path).then(
    () => true,
    () => false,
  );
  return recommended('Guest agent', ok, ok ? path : 'not built', 'run `npm run build`, or install the packaged vmmig');
}

function required(name: string, ok: boolean, detail: string, remedy: string): Check {
  return { name, ok, severity: 'required', detail, remedy: ok ? null : remedy };
}

function recommended(name: string, ok: boolean, detail: string, remedy: string): Check {
  return { name, ok, severity: 'recommended', detail, remedy: ok ? null : remedy };
}
