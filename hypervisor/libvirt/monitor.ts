/**
 * A domain's QMP through libvirt (`virsh qemu-monitor-command`), in the shape of a QmpClient: for looking, and for the
 * little that libvirt has no call for. libvirt notes in the domain's log that its monitor was used (it is "tainted").
 *
 * Events come from a `virsh qemu-monitor-event` of its own, started with the first wait for one:
 *
 *     2026-11-22 11:26:19.523+0000: event MIGRATION for domain 'vm1': {"status":"setup"}
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { QmpCommandError, type QmpEvent, QmpInterruptedError } from '../../qmp/index.js';
import type { QmpMonitor } from '../qmpMonitor.js';
import type { DomainAddress } from './domains.js';
import { LibvirtError } from './errors.js';
import type { Virsh } from './virsh.js';

interface Limits {
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number | undefined;
  readonly isPatient?: boolean | undefined;
}

interface Waiting {
  readonly event: string;
  readonly resolve: (event: QmpEvent) => void;
  readonly reject: (error: unknown) => void;
}

/** It would notice with the next event only that nobody listens any more. Its output ends with it, not with the shell. */
const endsWithOwner = 'exec 3<&0; virsh "$@" </dev/null 3<&- & exec >&-; read -r word <&3; kill -KILL $!';

const eventLine = /^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d\.\d+)([+-]\d{4}): event (\S+) for domain '.*': (.*)$/;

/** In the shape of a QmpClient, as far as that goes. */
export interface LibvirtMonitorClient extends QmpMonitor {
  /** Resolves when libvirt has hung up on who waits for events. */
  readonly lost: Promise<void>;
  /** The same; what it is asked waits for everything else that libvirt is asked. */
  readonly patient: QmpMonitor;
}

class LibvirtMonitor {
  readonly lost: Promise<void>;
  #tellLost!: () => void;
  readonly #virsh: Virsh;
  readonly #address: DomainAddress;
  readonly #waiting = new Set<Waiting>();
  #events: ChildProcess | null = null;
  #isClosed = false;

  constructor(virsh: Virsh, address: DomainAddress) {
    this.#virsh = virsh;
    this.#address = address;
    this.lost = new Promise((resolve) => {
      this.#tellLost = resolve;
    });
  }

  async execute(name: string, args: object = {}, limits: Limits = {}): Promise<unknown> {
    const command = JSON.stringify(
      Object.keys(args).length === 0 ? { execute: name } : { execute: name, arguments: args },
    );
    const words = ['qemu-monitor-command', '--domain', this.#address.domain, command];
    const said = await this.#virsh.run(words, limits);
    let answer: { return?: unknown; error?: { class: string; desc: string } };
    try {
      answer = JSON.parse(said);
    } catch (cause) {
      throw new LibvirtError('VMMIG_LIBVIRT_COMMAND', `${name}: libvirt answered with something else than JSON`, {
        cause,
      });
    }
    if (answer.error !== undefined)
      throw new QmpCommandError(name, String(answer.error.class), String(answer.error.desc));
    return answer.return;
  }

  waitFor(event: string, { signal, timeoutMs }: Limits = {}): Promise<QmpEvent> {
    this.#listen();
    const waited = new Promise<QmpEvent>((resolve, reject) => {
      const interrupt = (reason: 'abort' | 'timeout' | 'closed') => (cause?: unknown) => {
        end();
        reject(new QmpInterruptedError(`waiting for ${event}: ${reason}`, reason, { cause }));
      };
      const onAbort = interrupt('abort');
      const timer = timeoutMs === undefined ? undefined : setTimeout(interrupt('timeout'), timeoutMs);
      const end = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        this.#waiting.delete(waiting);
      };
      const waiting: Waiting = {
        event,
        resolve(found) {
          end();
          resolve(found);
        },
        reject: interrupt('closed'),
      };
      if (signal?.aborted || this.#isClosed) return onAbort(signal?.reason);
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiting.add(waiting);
    });
    waited.catch(() => {});
    return waited;
  }

  get patient(): QmpMonitor {
    const execute = (name: string, args?: object, limits?: Limits) =>
      this.execute(name, args, { ...limits, isPatient: true });
    return { execute, waitFor: this.waitFor.bind(this), close: this.close.bind(this) } as QmpMonitor;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#events?.stdin?.end();
    for (const waiting of [...this.#waiting]) waiting.reject(undefined);
  }

  #listen(): void {
    if (this.#events !== null || this.#isClosed) return;
    const { uri, domain } = this.#address;
    const args = ['--quiet', '--connect', uri, 'qemu-monitor-event', '--domain', domain, '--loop', '--timestamp'];
    const events = spawn('/bin/sh', ['-c', endsWithOwner, 'sh', ...args], {
      env: { ...process.env, LC_ALL: 'C' },
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    this.#events = events;
    events.on('error', () => {});
    events.stdout.once('close', () => {
      if (!this.#isClosed) this.#tellLost();
    });
    events.stdin.on('error', () => {});
    events.unref();
    createInterface({ input: events.stdout }).on('line', (line) => this.#take(line));
  }

  #take(line: string): void {
    const [, day, time, zone, name, data] = eventLine.exec(line) ?? [];
    if (name === undefined) return;
    const atMs = Date.parse(`${day}T${time}${zone}`);
    const timestamp = { seconds: Math.floor(atMs / 1000), microseconds: (atMs % 1000) * 1000 };
    const event = { event: name, data: parsed(data ?? ''), timestamp } as unknown as QmpEvent;
    for (const waiting of [...this.#waiting]) if (waiting.event === name) waiting.resolve(event);
  }
}

/** Of a domain that runs on this host. Closing it leaves `virsh` to its owner. */
export function openMonitor(virsh: Virsh, address: DomainAddress): LibvirtMonitorClient {
  return new LibvirtMonitor(virsh, address) as LibvirtMonitorClient;
}

function parsed(json: string): unknown {
  try {
    return JSON.parse(json) ?? {};
  } catch {
    return {};
  }
}
