import { describe, expect, test } from 'vitest';
import { CallerPatience } from '../../host-service/callerSilence.js';

describe('A caller that has gone silent', () => {
  test('counts as gone after 20 s, and twice as long as the relays look for each other while they do', () => {
    const patience = new CallerPatience();
    expect(patience.limitMs).toBe(20_000);
    patience.extend(60_000);
    expect(patience.limitMs).toBe(140_000);
  });

  test('is not waited for any longer once a relay has given up', () => {
    const patience = new CallerPatience();
    patience.extend(60_000);
    patience.end();
    expect(patience.limitMs).toBe(20_000);
  });
});
