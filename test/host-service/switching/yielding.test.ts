import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { getPriority } from 'node:os';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Yielding, yieldToFirstMoments } from '../../../host-service/switching/yielding.js';

describe('Yielding', () => {
  let pid: number;

  beforeEach(async () => {
    pid = await sleeping(true);
  });

  afterEach(() => {
    process.kill(pid, 'SIGKILL');
  });

  async function sleeping(detached: boolean): Promise<number> {
    const child = spawn('sleep', ['60'], { detached, stdio: 'ignore' });
    await new Promise((resolve) => child.once('spawn', resolve));
    return child.pid!;
  }

  /** Null where the kernel does not know of sessions. */
  function sessionNiceness(of = pid): number | null {
    try {
      return Number(/nice (-?\d+)/.exec(readFileSync(`/proc/${of}/autogroup`, 'utf8'))?.[1]);
    } catch {
      return null;
    }
  }

  it('takes less of the processor until it ends, for the process and for its session', () => {
    const before = { process: getPriority(pid), session: sessionNiceness() };
    const yielding = new Yielding();
    yielding.add(pid);
    expect(getPriority(pid)).toBe(10);
    expect(sessionNiceness()).toBe(before.session === null ? null : 10);
    yielding.end();
    expect({ process: getPriority(pid), session: sessionNiceness() }).toEqual(before);
  });

  it("leaves others' sessions alone", async () => {
    const follower = await sleeping(false);
    const before = sessionNiceness(follower);
    const yielding = new Yielding();
    yielding.add(follower);
    expect(getPriority(follower)).toBe(10);
    expect(sessionNiceness(follower)).toBe(before);
    yielding.end();
    process.kill(follower, 'SIGKILL');
  });

  it("lasts for a guest's first moments", () => {
    vi.useFakeTimers();
    const before = getPriority();
    yieldToFirstMoments();
    expect(getPriority()).toBe(10);
    vi.advanceTimersByTime(1_000);
    expect(getPriority()).toBe(before);
    vi.useRealTimers();
  });

  it('does not mind a process that has ended', () => {
    const yielding = new Yielding();
    expect(() => yielding.add(2 ** 22 + 1)).not.toThrow();
    expect(() => yielding.end()).not.toThrow();
  });
});
