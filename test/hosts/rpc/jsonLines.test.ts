import { PassThrough } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { JsonLineReader, JsonLineWriter } from '../../../hosts/rpc/jsonLines.js';

const MESSAGES = [
  { jsonrpc: '2.0' as const, text: 'a\nb\r\n' },
  { jsonrpc: '2.0' as const, text: 'é 漢字 🙂' },
  { jsonrpc: '2.0' as const },
];

async function read(chunks: readonly Buffer[]) {
  const stream = new PassThrough();
  const reader = new JsonLineReader(stream);
  const heard = { first: [] as string[], messages: [] as unknown[], errors: [] as Error[], closed: 0 };
  reader.onError((error) => heard.errors.push(error));
  reader.onClose(() => heard.closed++);
  reader.onFirstLine((line) => {
    heard.first.push(line);
    // The handshake may take its time; what came along with it must not be lost.
    setImmediate(() => reader.listen((message) => heard.messages.push(message)));
  });
  for (const chunk of chunks) {
    stream.write(chunk);
    await turn();
  }
  stream.end();
  for (let turns = 0; turns < 10; turns++) await turn();
  return heard;
}

async function written(): Promise<Buffer> {
  const stream = new PassThrough();
  const writer = new JsonLineWriter(stream);
  await writer.write({ hello: true });
  for (const message of MESSAGES) await writer.write(message);
  return stream.read() as Buffer;
}

describe('JSON lines', () => {
  test('read as they were written, split at every byte', async () => {
    const bytes = await written();
    for (let at = 0; at <= bytes.length; at++) {
      const heard = await read([bytes.subarray(0, at), bytes.subarray(at)].filter((chunk) => chunk.length > 0));
      expect(heard).toEqual({ first: ['{"hello":true}'], messages: MESSAGES, errors: [], closed: 1 });
    }
    const heard = await read([...bytes].map((byte) => Buffer.from([byte])));
    expect(heard).toEqual({ first: ['{"hello":true}'], messages: MESSAGES, errors: [], closed: 1 });
  });

  test('that are none end in an error or are no message, never in a crash', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 8 }), async (garbage) => {
        const heard = await read([Buffer.from('hello\n'), ...garbage.map((chunk) => Buffer.from(chunk))]);
        expect(heard.first).toEqual(['hello']);
        expect(heard.closed).toBe(1);
      }),
      { numRuns: 100 },
    );
  });

  test.each(['nonsense', '[1,2]', 'null', '12', '{"unfinished":'])(
    'that are no JSON objects are errors: %s',
    async (line) => {
      const heard = await read([Buffer.from(`hello\n${line}\n{"jsonrpc":"2.0"}\n`)]);
      expect(heard.errors[0]?.message).toBe(`not a message: ${JSON.stringify(line)}`);
    },
  );

  test('end at 4 KiB when there is no end to the first one', async () => {
    const heard = await read([Buffer.alloc(3000, 'x'), Buffer.alloc(3000, 'y'), Buffer.alloc(3000, 'z')]);
    expect(heard.first).toHaveLength(1);
    expect(heard.first[0]).toHaveLength(6000);
  });

  test('are an error beyond 64 MiB, without being kept', async () => {
    const stream = new PassThrough({ highWaterMark: 2 ** 30 });
    const reader = new JsonLineReader(stream);
    const errors: Error[] = [];
    reader.onError((error) => errors.push(error));
    reader.onFirstLine(() => reader.listen(() => {}));
    stream.write('hello\n');
    const chunk = Buffer.alloc(8 * 1024 * 1024, 'x');
    for (let count = 0; count < 9; count++) stream.write(chunk);
    await turn();
    expect(errors.map(({ message }) => message)).toEqual(['a message is longer than 67108864 bytes']);
  });
});
