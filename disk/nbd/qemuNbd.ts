/**
 * One qemu-nbd that serves one image to this process alone, read-only and beside the QEMU that has it locked.
 *
 * It is given a socket that listens already and that has a client already: this process connects before qemu-nbd
 * starts, and removes the socket's name at once. So nobody else can connect, nothing has to be polled, and nothing is
 * left behind. qemu-nbd ends when its client has gone, and is killed when this process dies before that.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { DiskError } from '../errors.js';
import { NbdConnection } from './connection.js';
import { type DiskImage, imageArguments, isPath } from './image.js';
import { listenOn } from './listeningSocket.js';
import { readerPrivileges } from './privileges.js';

export interface QemuNbdOptions {
  /** Past the host's page cache: insist, don't, or where the file system allows it. */
  readonly direct: boolean | 'auto';
  /** Where the socket is while it has a name. Default: the system's directory for temporary files. */
  readonly runDirectory?: string;
  /** Until the image is open. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** To end by itself when its client has said good-bye. */
const END_TIMEOUT_MS = 2000;
const KILL_TIMEOUT_MS = 1000;
/** To say why it has hung up. */
const LAST_WORDS_MS = 500;
const STDERR_CHARACTERS = 4096;
/** What a shell ends with when a program is not executable, or not there. */
const NO_PROGRAM = [126, 127];
/**
 * `$1` is who started it: if that has gone before the kernel was asked to tell, it is another one's child by now. The
 * socket is descriptor 3, as systemd hands sockets over (sd_listen_fds(3)).
 */
export const LAUNCH = '[ "$PPID" = "$1" ] || exit 0; shift; LISTEN_PID=$$ LISTEN_FDS=1 exec qemu-nbd "$@"';

export class QemuNbd implements AsyncDisposable {
  readonly connection: NbdConnection;
  /** Whether the image is read past the host's page cache. */
  readonly direct: boolean;
  readonly #child: ChildProcess;
  readonly #over: Promise<unknown>;

  private constructor(connection: NbdConnection, direct: boolean, child: ChildProcess, over: Promise<unknown>) {
    this.connection = connection;
    this.direct = direct;
    this.#child = child;
    this.#over = over;
  }

  /** @throws DiskError VMMIG_DISK_QEMU_NBD, VMMIG_DISK_OPEN, VMMIG_DISK_ENCRYPTED, VMMIG_DISK_SERVER; the signal's reason */
  static async start(image: DiskImage, options: QemuNbdOptions): Promise<QemuNbd> {
    const { direct } = options;
    if (direct === false) return await QemuNbd.#start(image, false, options);
    try {
      return await QemuNbd.#start(image, true, options);
    } catch (error) {
      // Which files a chain consists of, and on what file systems they are, qemu-nbd knows.
      if (direct === true || !(error instanceof DiskError) || !/O_DIRECT/.test(error.message)) throw error;
      return await QemuNbd.#start(image, false, options);
    }
  }

  static async #start(image: DiskImage, direct: boolean, options: QemuNbdOptions): Promise<QemuNbd> {
    const { signal, timeoutMs, runDirectory = tmpdir() } = options;
    signal?.throwIfAborted();
    const [privileges, imageArgs] = await Promise.all([
      readerPrivileges(isPath(image.path)),
      imageArguments(image, direct),
    ]);
    const directory = await mkdtemp(join(runDirectory, 'nbd-')).catch((cause: Error) => {
      throw new DiskError('VMMIG_DISK_OPEN', `no socket can be made in ${runDirectory}: ${cause.message}`, { cause });
    });
    let connection: NbdConnection | undefined;
    try {
      const path = join(directory, 'socket');
      const listener = listenOn(path);
      let child: ChildProcess;
      try {
        connection = new NbdConnection({ path });
        await connection.connected();
        const command = ['sh', '-c', LAUNCH, 'qemu-nbd', String(process.pid), ...imageArgs];
        child = spawn('setpriv', [...privileges, ...command], {
          cwd: '/',
          env: { ...process.env, LC_ALL: 'C' },
          stdio: ['ignore', 'ignore', 'pipe', listener],
        });
      } finally {
        closeSync(listener);
      }
      const over = outcome(child, image);
      try {
        const failed = over.then((reason) => Promise.reject(reason));
        await Promise.race([
          connection.negotiated({ negotiationTimeoutMs: timeoutMs, ...(signal ? { signal } : {}) }),
          failed,
        ]);
      } catch (error) {
        // Its hanging up is noticed before its end, and its end is what has reasons.
        const reason = await Promise.race([over, delay(LAST_WORDS_MS, error, { ref: false })]);
        await kill(child, over);
        throw signal?.aborted ? error : reason;
      }
      return new QemuNbd(connection, direct, child, over);
    } catch (error) {
      connection?.close();
      if (error instanceof DiskError || signal?.aborted) throw error;
      const { message } = error as Error;
      throw new DiskError('VMMIG_DISK_OPEN', `cannot open disk image ${image.path}: ${message}`, { cause: error });
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  /** Ends it. Reads that are under way fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.connection.close();
    const patience = new AbortController();
    const waited = delay(END_TIMEOUT_MS, 'late', { signal: patience.signal }).catch(() => 'ended');
    if ((await Promise.race([this.#over, waited])) === 'late') await kill(this.#child, this.#over);
    patience.abort();
  }
}

/** One that waits for storage that never answers cannot end, and is not waited for. */
async function kill(child: ChildProcess, over: Promise<unknown>): Promise<void> {
  child.kill('SIGKILL');
  child.unref();
  await Promise.race([over, delay(KILL_TIMEOUT_MS, undefined, { ref: false })]);
}

/** Resolves when the process has ended, with what is to be said of that. */
function outcome(child: ChildProcess, { path, format }: DiskImage): Promise<DiskError> {
  let stderr = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(0, STDERR_CHARACTERS);
  });
  return new Promise((resolve) => {
    const notThere = (what: string, cause?: unknown) =>
      resolve(new DiskError('VMMIG_DISK_QEMU_NBD', `reading ${format} images needs ${what}`, { cause }));
    child.once('error', (error) => notThere('setpriv (util-linux)', error));
    child.once('close', (code, signal) => {
      if (NO_PROGRAM.includes(code ?? 0)) return notThere('qemu-nbd');
      const reason = stderr.trim().replace(/^qemu-nbd: (Failed to blk_new_open '.*?': )?/s, '');
      const isEncrypted = /key-secret|encrypt/i.test(reason);
      const why = reason || `qemu-nbd ended (${signal ?? code})`;
      resolve(
        isEncrypted
          ? new DiskError('VMMIG_DISK_ENCRYPTED', `${path} is encrypted: ${why}`)
          : new DiskError('VMMIG_DISK_OPEN', `cannot open disk image ${path}: ${why}`),
      );
    });
  });
}
