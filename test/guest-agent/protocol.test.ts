import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AgentError } from '../../guest-agent/errors.js';
import { encodeFrame, FrameDecoder, frameType } from '../../guest-agent/protocol.js';

const session = Buffer.from('0102030405060708', 'hex');
const otherSession = Buffer.from('1112131415161718', 'hex');
const greeting = encodeFrame(frameType.helloAck, session, 0, Buffer.from('hello'));
const groups = encodeFrame(frameType.groups, session, 7, Buffer.from('some groups'));
const done = encodeFrame(frameType.done, session, 7, new Uint8Array(0));

function decode(chunks: Uint8Array[]): string[] {
  const decoder = new FrameDecoder(session);
  const seen: string[] = [];
  for (const chunk of chunks) {
    decoder.feed(chunk, ({ type, request, payload }) => seen.push(`${type} ${request} ${payload.toString('latin1')}`));
  }
  return seen;
}

const everything = Buffer.concat([greeting, groups, done]);
const decoded = [`${frameType.helloAck} 0 hello`, `${frameType.groups} 7 some groups`, `${frameType.done} 7 `];

function refused(frames: Uint8Array[]): void {
  expect(() => decode(frames)).toThrow(expect.objectContaining({ code: 'VMMIG_AGENT_PROTOCOL' }));
}

describe('the frame decoder', () => {
  it('finds the same frames wherever the bytes are split', () => {
    for (let at = 0; at <= everything.length; at++) {
      expect(decode([everything.subarray(0, at), everything.subarray(at)])).toEqual(decoded);
    }
    expect(decode([...everything].map((byte) => Uint8Array.of(byte)))).toEqual(decoded);
  });

  it('skips what comes before the answer to its HELLO: cut frames, frames of other sessions, noise', () => {
    const stale = encodeFrame(frameType.groups, otherSession, 3, Buffer.alloc(1000, 'VMGA'));
    const staleGreeting = encodeFrame(frameType.helloAck, otherSession, 0, Buffer.from('hello'));
    for (let cut = 0; cut < stale.length; cut += 13) {
      const bytes = Buffer.concat([stale.subarray(cut), staleGreeting, groups, Buffer.from('VMG'), everything]);
      expect(decode([bytes])).toEqual(decoded);
      expect(decode([bytes.subarray(0, 50), bytes.subarray(50)])).toEqual(decoded);
    }
  });

  it('takes no greeting whose checksum is wrong', () => {
    const broken = Buffer.from(greeting);
    broken[30]! ^= 1;
    expect(decode([broken, everything])).toEqual(decoded);
  });

  it('gives up on a sender that never greets', () => {
    const noise = Buffer.alloc(1024 * 1024, 'VMGA\x01\x81');
    const decoder = new FrameDecoder(session);
    expect(() => {
      for (let i = 0; i < 64; i++) decoder.feed(noise, () => {});
    }).toThrow(AgentError);
  });

  it('refuses anything wrong once greeted', () => {
    for (let at = 0; at < groups.length; at++) {
      const broken = Buffer.from(groups);
      broken[at]! ^= 0x10;
      // A length that became larger only shows when the next frame's bytes do not fit.
      refused([greeting, broken, Buffer.alloc(8 * 1024 * 1024)]);
    }
    refused([greeting, encodeFrame(frameType.groups, otherSession, 7, new Uint8Array(0))]);
    refused([greeting, encodeFrame(frameType.groups, session, 7, Buffer.alloc(128 * 1024 + 1))]);
    refused([greeting, Buffer.alloc(28)]);
  });

  it('survives arbitrary bytes in arbitrary pieces', () => {
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 100 }),
      fc.constantFrom(greeting, groups, done, greeting.subarray(0, 20), groups.subarray(5)),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 20 }), (pieces) => {
        try {
          decode(pieces);
        } catch (error) {
          expect(error).toBeInstanceOf(AgentError);
        }
      }),
    );
  });
});
