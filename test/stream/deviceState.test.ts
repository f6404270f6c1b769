import { describe, expect, it } from 'vitest';
import { describeDevices, StreamError, splitTail } from '../../stream/index.js';
import { be32, DEVICE, EOF, u8, vmdesc } from './bytes.js';

describe('a tail', () => {
  it('is split at its end into device state and description', () => {
    const tail = Buffer.concat([DEVICE, EOF, vmdesc('{"devices":[]}')]);
    const { deviceState, vmdesc: json } = splitTail(tail);
    expect(deviceState.equals(DEVICE)).toBe(true);
    expect(json?.toString()).toBe('{"devices":[]}');
  });

  it('may have no description', () => {
    expect(splitTail(Buffer.concat([DEVICE, EOF]))).toEqual({ deviceState: DEVICE, vmdesc: null });
  });

  it('is not misled by device state that looks like its end', () => {
    const state = Buffer.concat([DEVICE, EOF, vmdesc('{}'), EOF, u8(6), be32(0x01000000), DEVICE, EOF, u8(6)]);
    expect(splitTail(Buffer.concat([state, EOF, vmdesc('{"a":1}')]))).toEqual({
      deviceState: state,
      vmdesc: Buffer.from('{"a":1}'),
    });
    expect(splitTail(Buffer.concat([state, EOF])).vmdesc).toBeNull();
  });

  it.each([
    ['is empty', Buffer.alloc(0)],
    ['ends inside device state', DEVICE],
    ['ends inside its description', Buffer.concat([DEVICE, EOF, vmdesc('{"a":1}').subarray(0, -1)])],
  ])('that %s is truncated', (_what, tail) => {
    expect(() => splitTail(tail)).toThrow(StreamError);
  });
});

describe('a description', () => {
  it('gives each section and how long it is', () => {
    const fields = [
      { name: 'a', type: 'uint32', size: 4 },
      { name: 'b', type: 'buffer', size: 3, array_len: 5 },
    ];
    const subsections = [{ vmsd_name: 'timer/x', version: 1, fields: [{ size: 2 }] }];
    const json = { devices: [{ name: 'timer', instance_id: 3, version: 2, fields, subsections }] };
    expect(describeDevices(Buffer.from(JSON.stringify(json)))).toEqual([
      { name: 'timer', instance: 3, version: 2, lengthBytes: 19 + 5 + 19 + 6 + 7 + 2 },
    ]);
  });

  it.each(['', '[', 'null', '3', '{}', '{"devices":3}'])('that is none (%s) gives null', (text) => {
    expect(describeDevices(Buffer.from(text))).toBeNull();
  });

  it('may hold anything', () => {
    const deep = '{"subsections":['.repeat(1000) + ']}'.repeat(1000);
    const text = `{"devices":[7,null,{"fields":[{"size":-5},{"size":"x"},8],"name":9,"version":"y"},${deep}]}`;
    expect(describeDevices(Buffer.from(text))?.[0]).toEqual({ name: '', instance: 0, version: null, lengthBytes: 19 });
  });
});
