import { expect, it } from 'vitest';
import { commandName, decodeRamDiscard, encodePing, encodeRamDiscard, StreamError } from '../../stream/index.js';
import { be32 } from './bytes.js';

it('discarded ranges are encoded and decoded', () => {
  const ranges = [
    { startBytes: 0x1000, lengthBytes: 0x2000 },
    { startBytes: 2 ** 40, lengthBytes: 2 ** 33 },
  ];
  const data = encodeRamDiscard('pc.ram', ranges);
  expect(decodeRamDiscard(data)).toEqual({ block: 'pc.ram', ranges });
  expect(decodeRamDiscard(encodeRamDiscard('m0', []))).toEqual({ block: 'm0', ranges: [] });
});

it('discarded ranges that are damaged are refused', () => {
  const data = encodeRamDiscard('pc.ram', [{ startBytes: 0, lengthBytes: 4096 }]);
  for (let length = 0; length < data.length; length += 1) {
    if (length === data.length - 16) continue;
    expect(() => decodeRamDiscard(data.subarray(0, length), 77)).toThrow(StreamError);
  }
});

it('commands have QEMU’s names, unknown ones their number', () => {
  expect([1, 7, 11, 99].map(commandName)).toEqual(['OPEN_RETURN_PATH', 'PACKAGED', 'SWITCHOVER_START', '99']);
  expect(encodePing(5)).toEqual(be32(5));
});
