/** A tiny guest that runs the agent, everything needed to look into it, and a place for its files. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { projectDirectory } from '../../lab/assets.js';
import { type RunningGuest, startTinyGuest, type TinyGuestLaunch, waitForBoot } from '../../lab/guest/launch.js';
import type { GuestShell } from '../../lab/guest/shell.js';
import { QmpClient } from '../../qmp/index.js';

/** Builds the agent as it is in this checkout, in a directory of its own. */
export async function buildAgent(directory: string): Promise<string> {
  await execa('make', ['-C', join(projectDirectory(), 'guest-agent'), `OUT=${directory}`]);
  return join(directory, 'vmmig-agent');
}

/** A directory for a test's files, with a name for a RAM file beside it in memory. */
export class Workspace implements AsyncDisposable {
  readonly path: string;
  readonly ramPath: string;

  private constructor(path: string) {
    this.path = path;
    this.ramPath = join('/dev/shm', `${path.split('/').pop()}.ram`);
  }

  static async create(): Promise<Workspace> {
    return new Workspace(await mkdtemp(join(tmpdir(), 'vmmig-agent-')));
  }

  file(name: string): string {
    return join(this.path, name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
    for (const suffix of ['', '.stalled', '.busy']) await rm(`${this.ramPath}${suffix}`, { force: true });
  }
}

/** A guest that runs, booted or moved here stopped by a migration, with its shell and monitor. */
export class AgentGuest implements AsyncDisposable {
  readonly qemu: RunningGuest;
  readonly shell: GuestShell;
  readonly qmp: QmpClient;

  private constructor(qemu: RunningGuest, shell: GuestShell, qmp: QmpClient) {
    this.qemu = qemu;
    this.shell = shell;
    this.qmp = qmp;
  }

  static async boot(launch: TinyGuestLaunch): Promise<AgentGuest> {
    const qemu = await startTinyGuest(launch);
    try {
      const qmp = await QmpClient.connect({ path: qemu.qmpPath });
      if (launch.incoming) {
        while ((await qmp.execute('query-status')).status === 'inmigrate') await sleep(50);
        await qmp.execute('cont');
      }
      return new AgentGuest(qemu, await waitForBoot(qemu.shellPath, { timeoutMs: 60_000 }), qmp);
    } catch (error) {
      await qemu[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Bytes that the agent has caused to be read from any disk since it was started, by the kernel's account. */
  async agentReadBytes(): Promise<number> {
    return Number(await this.shell.output("awk '/^read_bytes/ { print $2 }' /proc/$(pidof vmmig-agent)/io"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.shell[Symbol.asyncDispose]();
    await this.qmp[Symbol.asyncDispose]();
    await this.qemu[Symbol.asyncDispose]();
  }
}
