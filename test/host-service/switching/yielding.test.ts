import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { getPriority } from 'node:os';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Yielding } from '../../../host-service/switching/yielding.js';

describe('Yielding', () => {
  let pid: number;

  beforeEach(async () => {
    const child = spawn('sleep', ['60'], { detached: true, stdio: 'ignore' });
    await new Promise((resolve) => child.once('spawn', resolve));
    pid = child.pid!;
  });

  afterEach(() => {
    process.kill(pid, 'SIGKILL');
  });

  /** Null where the kernel does not know of sessions. */
  function sessionNiceness(): number | null {
    try {
      return Number(/nice (-?\d+)/.exec(readFileSync(`/proc/${pid}/autogroup`, 'utf8'))?.[1]);
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

  it('does not mind a process that has ended', () => {
    const yielding = new Yielding();
    expect(() => yielding.add(2 ** 22 + 1)).not.toThrow();
    expect(() => yielding.end()).not.toThrow();
  });
});
