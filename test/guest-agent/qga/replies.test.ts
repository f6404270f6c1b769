import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { printable, QgaReplies, type QgaReply } from '../../../guest-agent/qga/replies.js';

const invalid = expect.objectContaining({ code: 'VMMIG_AGENT_PROTOCOL' });

/** Feeds text (latin1: \xff is the delimiter) in pieces of the size given. */
function feed(replies: QgaReplies, text: string, pieceLength = text.length): QgaReply[] {
  const bytes = Buffer.from(text, 'latin1');
  const found: QgaReply[] = [];
  for (let at = 0; at < bytes.length; at += pieceLength)
    replies.feed(bytes.subarray(at, at + pieceLength), (reply) => found.push(reply));
  return found;
}

function awaiting(id: number): QgaReplies {
  const replies = new QgaReplies();
  replies.awaitSync(id);
  return replies;
}

describe('replies of qemu-guest-agent', () => {
  it('are found however they are split', () => {
    const text =
      '{"return": {"pid": 7}}\n{"error": {"class": "GenericError", "desc": "no such file"}}\r\n\n{"return": 1}\n';
    for (let size = 1; size <= text.length; size++)
      expect(feed(new QgaReplies(), text, size)).toEqual([
        { value: { pid: 7 } },
        { error: 'no such file' },
        { value: 1 },
      ]);
  });

  it('count from the answer to our own sync on', () => {
    const stale = 'rest of a line"}}\n{"return": {"pid": 3}}\n\xff{"return": 41}\n{"return": 42}\n{"return": {"bu';
    const text = `${stale}\xff{"return": 42}\n{"return": "ours"}\n`;
    for (let size = 1; size <= text.length; size++)
      expect(feed(awaiting(42), text, size)).toEqual([{ value: null }, { value: 'ours' }]);
  });

  it('do not count without the delimiter, as an error, or as something else that has our number in it', () => {
    const text =
      '{"return": 42}\n\xff{"error": {"desc": "42"}}\n\xff{"return": "42"}\n\xff[42]\n\xff42\n\xff{"return": 42}';
    expect(feed(awaiting(42), text)).toEqual([]);
  });

  it('may be of any length and kind before the sync, and are not kept', () => {
    const replies = awaiting(42);
    for (let i = 0; i < 40; i++) expect(feed(replies, 'x'.repeat(1024 * 1024))).toEqual([]);
    expect(feed(replies, '\n\xff{"return": 42}\n')).toEqual([{ value: null }]);
  });

  it('are an error when they are too long, no JSON, or no reply', () => {
    for (const line of ['{"return": ', 'null', '[]', '17', '{}', '{"event": "x"}', '[{"return": 1}]'])
      expect(() => feed(new QgaReplies(), `${line}\n`)).toThrow(invalid);
    const replies = new QgaReplies();
    feed(replies, 'x'.repeat(2 * 1024 * 1024));
    expect(() => feed(replies, 'x')).toThrow(invalid);
    expect(() => feed(new QgaReplies(), `{"return": ${'['.repeat(100_000)}\n`)).toThrow(invalid);
  });

  it('are an AgentError or replies, whatever bytes come', () => {
    const pieces = fc.array(
      fc.oneof(fc.uint8Array({ maxLength: 40 }), fc.constant(Buffer.from('\xff{"return": 42}\n', 'latin1'))),
    );
    fc.assert(
      fc.property(pieces, fc.boolean(), (all, inSync) => {
        const replies = inSync ? new QgaReplies() : awaiting(42);
        try {
          for (const piece of all) replies.feed(Buffer.from(piece), () => {});
        } catch (error) {
          expect(error).toEqual(invalid);
        }
      }),
    );
  });

  it('have texts that can be shown', () => {
    expect(printable('a\x1b[31mb\u0007\nc\u202e', 100)).toBe('a [31mb c');
    expect(printable('é'.repeat(500), 300)).toHaveLength(300);
    const error = JSON.stringify({ error: { desc: `\x1b]0;title\x07${'x'.repeat(10_000)}` } });
    expect(feed(new QgaReplies(), `${error}\n`)).toEqual([{ error: expect.stringMatching(/^\]0;title x{280,300}$/) }]);
    expect(feed(new QgaReplies(), '{"error": 5}\n')).toEqual([{ error: 'no reason given' }]);
  });
});
