import { once } from 'node:events';
import { createServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import { PostcopyStream } from '../../../relay/destination/postcopy/postcopyStream.js';
import { encodeReturnPath } from '../../../stream/index.js';
import { block, devices, nextPath, Rig, ramSection } from './rig.js';

describe('a QEMU that is not one', () => {
  const asks = (name: string, offsetBytes: number, lengthBytes: number) => {
    return encodeReturnPath({ type: 'request-pages', block: name, offsetBytes, lengthBytes, named: true });
  };

  it.each<[string, Buffer, RegExp]>([
    ['speaks of an unknown block', asks('foo', 0, 4096), /RAM block "foo"/],
    ['asks for memory that is not there', asks('ram', 64 * 4096, 4096), /beyond ram/],
    ['asks for half a page', asks('ram', 0, 2048), /said what no QEMU says/],
    ['asks for a part of a huge page', asks('huge', 0, 4096), /asked for 4096 bytes at 0 of huge/],
    ['asks across huge pages', asks('huge', 4096, 8 * 4096), /asked for 32768 bytes at 4096 of huge/],
    ['asks for several pages', asks('ram', 0, 2 ** 31), /asked for 2147483648 bytes/],
    ['asks for a page of no block', Buffer.from('0004000c000000000000000000001000', 'hex'), /said what no QEMU says/],
    ['says what nobody says', Buffer.from('00630000', 'hex'), /said what no QEMU says/],
    ['gives up', encodeReturnPath({ type: 'shut', value: 1 }), /gave up/],
    [
      'sends a bitmap that nobody wanted',
      encodeReturnPath({ type: 'received-bitmap', block: 'ram', bitmap: Buffer.alloc(8) }),
      /bitmap that nobody wanted/,
    ],
  ])('that %s has lost the stream', async (_, bytes, message) => {
    await using rig = await Rig.begin([block(0, 'ram', 64), block(1, 'huge', 64, 8)]);
    await rig.stream.switchOver(devices);
    rig.qemu.raw(bytes);
    await rig.until(() => rig.lost.length > 0);
    expect(rig.lost).toMatchObject([{ code: 'VMMIG_RELAY_QEMU', message: expect.stringMatching(message) }]);
    expect(rig.faults).toEqual([]);
  });

  it.each<[string, Buffer, RegExp]>([
    ['goes on without a bitmap', encodeReturnPath({ type: 'resume-ack', value: 1 }), /without having told/],
    [
      'sends a bitmap of another size',
      encodeReturnPath({ type: 'received-bitmap', block: 'ram', bitmap: Buffer.alloc(8) }),
      /sent 8 bytes of bitmap for ram/,
    ],
    ['hangs up', Buffer.alloc(0), /hung up/],
  ])('that %s resumes nothing', async (_, bytes, message) => {
    const path = nextPath();
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', () => socket.end(bytes));
    });
    await once(server.listen(path), 'listening');
    try {
      const handlers = { fault() {}, lost() {} };
      const resumed = PostcopyStream.resume(path, handlers, { ramSection, blocks: [block(0, 'ram', 100)] });
      await expect(resumed).rejects.toThrow(message);
    } finally {
      server.close();
    }
  });

  it('that hangs up lets nobody wait', async () => {
    await using rig = await Rig.begin([block(0, 'ram', 64)]);
    await rig.stream.switchOver(devices);
    rig.stream.zero(0, 0, 64);
    rig.qemu.stall(true);
    const ended = rig.stream.end();
    rig.qemu.hangUp();
    await expect(ended).rejects.toMatchObject({ code: 'VMMIG_RELAY_QEMU' });
    expect(rig.lost.length).toBe(1);
    await rig.stream.drained();
  });

  it('that is not there is an error', async () => {
    const handlers = { fault() {}, lost() {} };
    await expect(PostcopyStream.connect(nextPath(), handlers)).rejects.toMatchObject({
      code: 'VMMIG_RELAY_QEMU',
    });
  });
});
