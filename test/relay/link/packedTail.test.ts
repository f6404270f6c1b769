import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { RelayError } from '../../../relay/errors.js';
import { maxTailPayloadBytes, packTail, unpackTail } from '../../../relay/link/packedTail.js';

const text = Buffer.from('{"name": "timer", "size": 8}, '.repeat(1000));

describe('a packed tail', () => {
  test('comes out as it went in', () => {
    const packed = packTail(text)!;
    expect(packed.length).toBeLessThan(text.length / 4);
    expect(unpackTail(packed).equals(text)).toBe(true);
  });

  test('is not made of what cannot be compressed', () => {
    expect(packTail(randomBytes(4096))).toBeNull();
    expect(packTail(Buffer.alloc(1))).toBeNull();
  });

  test('that does not hold what it says is a protocol error', () => {
    const packed = Buffer.from(packTail(text)!);
    const claiming = (lengthBytes: number) => {
      const payload = Buffer.from(packed);
      payload.writeUInt32BE(lengthBytes, 0);
      return payload;
    };
    for (const payload of [
      Buffer.alloc(0),
      Buffer.alloc(4),
      packed.subarray(0, packed.length - 1),
      claiming(0),
      claiming(text.length - 1),
      claiming(text.length + 1),
      claiming(maxTailPayloadBytes + 1),
      Buffer.concat([claiming(4096).subarray(0, 4), randomBytes(64)]),
    ])
      expect(() => unpackTail(payload)).toThrow(RelayError);
  });
});
