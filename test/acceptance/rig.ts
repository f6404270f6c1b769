/**
 * What the acceptance tests share: a lab of their own, guests that move in it by the `vmmig` command, and the check that
 * a migration has left nothing behind.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect } from 'vitest';
import {
  guestPathsFromOutside,
  type HostName,
  hostNames,
  type LabGuestOptions,
  type LabSettings,
  labDown,
  labExec,
  labGuestShell,
  labGuestStart,
  labPaths,
  labUp,
  wanCounters,
} from '../../lab/index.js';
import type { MigrationReport, ProgressEvent } from '../../migrate/index.js';
import { QmpClient } from '../../qmp/index.js';

/** Whether what takes minutes is asked for. */
export const isFull = Boolean(process.env.VMMIG_TEST_FULL);

/** A link on which a migration is over before anything else happens. */
export const fastWan = { rttMs: 1, rateBps: 1e9 } as const;

/** One lab for a test file; what a crashed run left of it is removed first. */
export function useLab(settings: Partial<LabSettings>): void {
  beforeAll(async () => {
    process.env.VMMIG_LAB_DIR ??= '/var/lib/vmmig/lab-acceptance';
    await labDown();
    await labUp(settings);
  });
  afterAll(() => labDown());
}

export interface Outcome {
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
  readonly events: readonly ProgressEvent[];
  /** @throws SyntaxError unless stdout is one JSON document */
  readonly report: MigrationReport;
}

export type Mode = MigrationReport['mode'];

/** A `vmmig teleport` or `vmmig switch` that is under way. */
export class Move {
  readonly events: ProgressEvent[] = [];
  readonly ended: Promise<Outcome>;
  #wake: () => void = () => {};
  #isOver = false;
  readonly #kill: (signal: NodeJS.Signals) => void;

  constructor(mode: Mode, on: HostName, vm: string, to: string, more: readonly string[]) {
    const argv = ['vmmig', mode, vm, '--to', to, '--json', '--progress', 'rawjson', ...more];
    // A command that goes on after SIGTERM has its reasons.
    const options = { reject: false, forceKillAfterDelay: false } as const;
    const command = labExec(on, argv as [string, ...string[]], options);
    this.#kill = (signal) => void command.kill(signal);
    createInterface({ input: command.stderr as Readable }).on('line', (line) => {
      if (!line.startsWith('{')) return;
      this.events.push(JSON.parse(line) as ProgressEvent);
      this.#wake();
    });
    this.ended = command.then(({ exitCode, stdout, stderr }) => {
      this.#isOver = true;
      this.#wake();
      const { events } = this;
      return {
        exitCode,
        stdout,
        stderr,
        events,
        get report() {
          return JSON.parse(stdout) as MigrationReport;
        },
      };
    });
  }

  /** Resolves with the first event, also an earlier one, that is as wanted. */
  async until(isWanted: (event: ProgressEvent) => boolean): Promise<ProgressEvent> {
    for (let at = 0; ; at++) {
      while (at >= this.events.length) {
        if (this.#isOver) throw new Error(`vmmig ended before that: ${(await this.ended).stderr}`);
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
      if (isWanted(this.events[at]!)) return this.events[at]!;
    }
  }

  /** Resolves when pages have begun to cross the link. */
  async untilPagesMove(): Promise<void> {
    await this.until((event) => event.type === 'sample' && event.pages.sent + event.pages.teleported > 1000);
  }

  /** Resolves when the guest of a switch runs on the destination, and has memory to wait for. */
  async untilPull(): Promise<void> {
    await this.until((event) => event.type === 'phase' && event.name === 'pull' && event.state === 'begin');
  }

  signal(name: NodeJS.Signals): void {
    this.#kill(name);
  }
}

export type MoveOutcome = Outcome & { readonly wanBytes: number };

/** A guest that can be moved between the lab's hosts. */
export class Guest {
  private constructor(
    readonly name: string,
    /** Where it runs; `teleport` and `switch` keep it right. */
    public host: HostName,
    /** Where clients outside of the hosts reach it, if they do. */
    readonly address: string | null,
  ) {}

  static async start(name: string, options: LabGuestOptions): Promise<Guest> {
    const { address } = await labGuestStart(name, 'hostA', options);
    return new Guest(name, 'hostA', address);
  }

  get otherHost(): HostName {
    return this.host === 'hostA' ? 'hostB' : 'hostA';
  }

  /** Runs a command in the guest. @throws LabError when it fails */
  async run(command: string, timeoutMs = 120_000): Promise<string> {
    await using shell = await labGuestShell(this.name, this.host);
    return await shell.output(command, { timeoutMs });
  }

  /** Asks its QEMU, whose monitor serves one at a time. */
  async withMonitor<T>(ask: (qmp: QmpClient) => Promise<T>): Promise<T> {
    await using qmp = await QmpClient.connect({ path: guestPathsFromOutside(this.name, this.host).qmpPath });
    return await ask(qmp);
  }

  /** Goes up ten times a second since the guest has booted. */
  async count(): Promise<number> {
    return Number(await this.run('count'));
  }

  /** Starts a teleport to the other host, from the host where the guest is. */
  begin(...more: readonly string[]): Move {
    return new Move('teleport', this.host, this.name, this.otherHost, more);
  }

  /** Likewise a switch. */
  beginSwitch(...more: readonly string[]): Move {
    return new Move('switch', this.host, this.name, this.otherHost, more);
  }

  /** Moves the guest to the other host, which must succeed. */
  async teleport(...more: readonly string[]): Promise<MoveOutcome> {
    return await this.#move(() => this.begin(...more));
  }

  /** Likewise. */
  async switch(...more: readonly string[]): Promise<MoveOutcome> {
    return await this.#move(() => this.beginSwitch(...more));
  }

  async #move(begin: () => Move): Promise<MoveOutcome> {
    const counted = await this.count();
    const before = await wanBytes();
    const outcome = await begin().ended;
    expect(outcome.exitCode, await this.#whatWentWrong(outcome)).toBe(0);
    expect(outcome.report).toMatchObject({ result: 'moved', vmLocation: 'destination', error: null, verified: true });
    this.host = this.otherHost;
    const after = await wanBytes();
    await this.expectToRun(counted);
    return { ...outcome, report: outcome.report, wanBytes: after - before };
  }

  async #whatWentWrong({ exitCode, events, stderr }: Outcome): Promise<string> {
    if (exitCode === 0) return '';
    const path = join(labPaths.hostDirectory(this.otherHost), 'state', `${this.name}.log`);
    const log = await readFile(path, 'utf8').catch(() => '');
    const end = events.at(-1);
    return `${end?.type === 'end' ? JSON.stringify(end.report) : stderr}\nThe destination's QEMU said: ${log}`;
  }

  /** It counts on from where it was. */
  async expectToRun(counted: number): Promise<void> {
    const now = await this.count();
    expect(now).toBeGreaterThanOrEqual(counted);
    await expect.poll(() => this.count(), { timeout: 60_000 }).toBeGreaterThan(now);
  }
}

/** What has crossed the WAN, both ways. */
export async function wanBytes(): Promise<number> {
  const { toHostA, toHostB } = await wanCounters();
  return toHostA + toHostB;
}

/** Processes on a host but for the lab's own, by process id there. */
export async function processesOn(host: HostName): Promise<{ pid: number; command: string }[]> {
  const { stdout } = await labExec(host, ['ps', '-e', '-o', 'pid=,stat=,args=']);
  return stdout
    .split('\n')
    .map((line) => /^\s*(\d+)\s+(\S+)\s+(.*)$/.exec(line)!)
    .filter(([, , stat]) => !stat!.startsWith('Z'))
    .map(([, pid, , command]) => ({ pid: Number(pid), command: command! }))
    .filter(({ command }) => !/^\S*lab-host |^ps -e |^sshd: \S+ -D /.test(command));
}

/** The one process on a host whose command line is like that. */
export async function processOn(host: HostName, like: RegExp): Promise<number> {
  const found = (await processesOn(host)).filter(({ command }) => like.test(command));
  expect(found, `on ${host}, processes like ${like}`).toHaveLength(1);
  return found[0]!.pid;
}

export async function kill(host: HostName, pid: number, signal = 'KILL'): Promise<void> {
  await labExec(host, ['kill', `-${signal}`, String(pid)]);
}

/** What vmmig's programs are called in a process list. */
export const processes = {
  service: /\bhost-service$/,
  commandLine: /\b(teleport|switch) vm1\b/,
  qemu: /^\S*qemu-system-x86_64 /,
} as const;

/**
 * Waits until both hosts run nothing but each of `guests`' QEMU, on its host, and /run/vmmig holds nothing.
 * @param hosts those looked at
 */
export async function expectNothingLeft(
  guests: readonly Guest[],
  { hosts = hostNames, timeoutMs = 15_000 }: { hosts?: readonly HostName[]; timeoutMs?: number } = {},
): Promise<void> {
  for (const host of hosts) {
    const expected = guests.filter((guest) => guest.host === host).map(({ name }) => `QEMU of ${name}`);
    for (const deadline = Date.now() + timeoutMs; ; await sleep(200)) {
      const running = (await processesOn(host)).map(({ command }) => nameOf(command)).sort();
      const files = await labExec(host, ['find', '/run/vmmig', '-mindepth', '1'], { reject: false });
      const found = [...running, ...files.stdout.split('\n').filter((line) => line !== '')];
      if (Date.now() < deadline && String(found) !== String(expected.sort())) continue;
      expect(found, `on ${host}`).toEqual(expected);
      break;
    }
  }
}

function nameOf(command: string): string {
  const guest = processes.qemu.test(command) ? / -name (\S+)/.exec(command)?.[1] : undefined;
  return guest === undefined ? command : `QEMU of ${guest}`;
}
