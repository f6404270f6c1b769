import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { projectDirectory } from '../../lab/assets.js';
import { Workspace } from './agentGuest.js';

let workspace: Workspace;
let harness: string;

beforeAll(async () => {
  workspace = await Workspace.create();
  harness = workspace.file('groups-harness');
  const sources = join(projectDirectory(), 'guest-agent/src');
  const own = join(projectDirectory(), 'test/guest-agent/groupsHarness.c');
  const files = [own, join(sources, 'groups.c'), join(sources, 'frame.c')];
  await execa('musl-gcc', ['-static', '-O2', '-Wall', '-Wextra', '-Werror', `-I${sources}`, '-o', harness, ...files]);
});

afterAll(() => workspace?.[Symbol.asyncDispose]());

type Report = Record<'full' | 'changes' | 'memory', { value: number; bytes: number; removed: number }>;

async function run(first: number, second: number): Promise<Report> {
  const { stdout } = await execa(harness, [String(first), String(second)]);
  const lines = stdout.split('\n').map((line) => line.split(' '));
  return Object.fromEntries(
    lines.map(([name, value, bytes, removed]) => [
      name,
      { value: Number(value), bytes: Number(bytes), removed: Number(removed) },
    ]),
  ) as Report;
}

describe("the agent's memory of what it sent", () => {
  it('makes a scan for changes send what changed, and what is gone', async () => {
    const { full, changes } = await run(100_000, 60_000);
    expect(changes.removed).toBe(40_000);
    // A tenth of the 60,000, and 8 bytes for each that is gone.
    expect(changes.bytes - 8 * 40_000).toBeLessThan((full.bytes / 100_000) * 6_000 * 1.5);
    expect(changes.bytes - 8 * 40_000).toBeGreaterThan(6_000 * 10);
    expect((await run(5_000, 5_000)).changes.removed).toBe(0);
  });

  it('stays under 64 MiB for 16 Mi cached pages, each a file of its own', async () => {
    const { memory } = await run(2 ** 24, 0);
    expect(memory.value).toBeLessThan(64 * 1024);
  });

  it('sends again what it had no room to remember', async () => {
    const { full, changes } = await run(2 ** 21, 2 ** 21);
    expect(changes.bytes).toBeLessThan(full.bytes);
    expect(changes.bytes).toBeGreaterThan(full.bytes / 4);
    expect(changes.removed).toBe(0);
  });
});
