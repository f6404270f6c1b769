import { describe, expect, it } from 'vitest';
import { noAgent } from '../../migrate/noAgent.js';

const search = { found: false, reason: 'nobody there', isBlocked: false, pageCacheBytes: null } as const;

describe('A guest without an agent', () => {
  it('is said to send its page cache, and why', () => {
    expect(noAgent('vm1', search)).toMatchObject({
      severity: 'warn',
      code: 'VMMIG_PREFLIGHT_NO_AGENT',
      message: 'no agent answers in vm1: its page cache will be sent over the network (nobody there)',
      remedy: expect.stringMatching(/^run qemu-guest-agent in the guest/),
    });
  });

  it('is told what an agent could have spared, when that is known', () => {
    const { message } = noAgent('vm1', { ...search, pageCacheBytes: 3.25 * 2 ** 30 });
    expect(message).toContain('its page cache, some 3,328 MiB by its own count, will be sent');
  });

  it('is told to allow what is blocked', () => {
    const { remedy } = noAgent('vm1', { ...search, isBlocked: true });
    expect(remedy).toMatch(/^let qemu-guest-agent run programs/);
  });
});
