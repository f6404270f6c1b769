/**
 * `virsh migrate`, in a session of its own: once libvirt has begun, it has to be able to finish, whatever becomes of this
 * process. The guest's stream is what ends it early: when that breaks, QEMU's migration fails, and libvirt puts both sides
 * in order.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { LibvirtError, libvirtError } from './errors.js';

export interface MigrateDomainOptions {
  /** The source's daemon. */
  readonly uri: string;
  readonly domain: string;
  readonly destinationUri: string;
  /** Where the destination's QEMU listens, and libvirt connects to on the source. */
  readonly socketPath: string;
  readonly postcopy: boolean;
  readonly persistent: boolean;
  readonly undefineSource: boolean;
  readonly destinationName: string | null;
  /** A file with the XML for the destination. */
  readonly xmlPath: string | null;
  readonly unsafe: boolean;
  /** QEMU is to slow the guest down when it writes faster than its stream is taken. */
  readonly autoConverge: boolean;
}

export interface DomainMigration {
  readonly pid: number;
  /** Resolves when libvirt says that the domain has moved; rejects with a LibvirtError. */
  readonly ended: Promise<void>;
  readonly hasEnded: boolean;
  /** Leaves the source as it is: paused, when libvirt waits for the destination's answer. */
  kill(): void;
}

export function migrateDomain(options: MigrateDomainOptions): DomainMigration {
  const child: ChildProcess = spawn('virsh', argumentsOf(options), {
    detached: true,
    env: { ...process.env, LC_ALL: 'C' },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  let hasEnded = false;
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    said = `${said}${text}`.slice(-8192);
  });
  const ended = new Promise<void>((resolve, reject) => {
    child.once('error', (cause) => {
      hasEnded = true;
      reject(new LibvirtError('VMMIG_LIBVIRT_UNREACHABLE', `cannot start virsh: ${cause.message}`, { cause }));
    });
    child.once('close', (code, signal) => {
      hasEnded = true;
      if (code === 0) return resolve();
      const error = libvirtError(said.trim() === '' && signal !== null ? `error: virsh was ended by ${signal}` : said);
      reject(error.code === 'VMMIG_LIBVIRT_COMMAND' ? new LibvirtError('VMMIG_LIBVIRT_MIGRATE', error.message) : error);
    });
  });
  ended.catch(() => {});
  return {
    pid: child.pid ?? 0,
    ended,
    get hasEnded() {
      return hasEnded;
    },
    kill: () => void child.kill('SIGKILL'),
  };
}

/** Without keepalive: a network that fails while libvirt waits for the destination's answer must not count as a no. */
function argumentsOf(options: MigrateDomainOptions): string[] {
  const { uri, domain, destinationUri, socketPath, destinationName, xmlPath } = options;
  return [
    ...['--quiet', '--keepalive-interval', '0', '--connect', uri],
    ...['migrate', '--live', '--migrateuri', `unix://${socketPath}`],
    ...(options.postcopy ? ['--postcopy'] : []),
    ...(options.persistent ? ['--persistent'] : []),
    ...(options.undefineSource ? ['--undefinesource'] : []),
    ...(options.unsafe ? ['--unsafe'] : []),
    ...(options.autoConverge ? ['--auto-converge'] : []),
    ...(destinationName === null ? [] : ['--dname', destinationName]),
    ...(xmlPath === null ? [] : ['--xml', xmlPath]),
    ...['--domain', domain, '--desturi', destinationUri],
  ];
}
