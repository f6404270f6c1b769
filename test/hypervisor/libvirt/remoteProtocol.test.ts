import { describe, expect, test } from 'vitest';
import {
  encodeReply,
  finishReply,
  pong,
  type RemoteMessage,
  RemoteMessages,
  RemoteProtocolError,
} from '../../../hypervisor/index.js';

const remote = 0x20008086;
const [call, reply] = [0, 1];

function message(
  program: number,
  procedure: number,
  type: number,
  serial: number,
  payload: Buffer = Buffer.alloc(0),
): Buffer {
  const words = [28 + payload.length, program, 1, procedure, type, serial, 0];
  return Buffer.concat([Buffer.from(new Uint32Array(words).buffer).swap32(), payload]);
}

const finish = (cancelled: number) =>
  message(remote, 306, call, 7, Buffer.concat([Buffer.from('params  cookie  '), Buffer.from([0, 0, 0, cancelled])]));

function kindsOf(bytes: Buffer): string[] {
  return new RemoteMessages().feed(bytes).map(({ kind }) => kind);
}

describe('What virsh and a daemon say', () => {
  const said = Buffer.concat([message(remote, 1, call, 1), finish(0), pong(), message(remote, 1, reply, 1)]);

  test('is told apart', () => {
    expect(kindsOf(said)).toEqual(['call', 'finish', 'other', 'answer']);
    expect(kindsOf(message(0x6b656570, 1, 2, 0))).toEqual(['ping']);
  });

  test('that the guest is to be forgotten is no question whether to run it', () => {
    expect(kindsOf(finish(1))).toEqual(['call']);
  });

  test('is the same in whatever pieces it comes, byte for byte', () => {
    for (let size = 1; size < said.length; size++) {
      const messages = new RemoteMessages();
      const found: RemoteMessage[] = [];
      for (let at = 0; at < said.length; at += size) found.push(...messages.feed(said.subarray(at, at + size)));
      expect(found.map(({ kind }) => kind)).toEqual(['call', 'finish', 'other', 'answer']);
      expect(Buffer.concat(found.map(({ raw }) => raw))).toEqual(said);
    }
  });

  test.each([0, 27, 33_554_437, 0xffffffff])('is not read on after a message of %d bytes', (lengthBytes) => {
    const head = Buffer.alloc(4);
    head.writeUInt32BE(lengthBytes);
    expect(() => new RemoteMessages().feed(head)).toThrow(RemoteProtocolError);
  });
});

describe('An answer', () => {
  const [asked] = new RemoteMessages().feed(finish(0)) as [RemoteMessage];

  test('to the question whether to run the guest names the domain', () => {
    const answer = finishReply(asked, { name: 'vm1', uuid: '9a978b97-6931-430a-878a-1d588d291ccf' });
    const [header, payload] = [answer.subarray(0, 28), answer.subarray(28)];
    expect(header).toEqual(message(remote, 306, reply, 7, payload).subarray(0, 28));
    const words = ['00000003', '766d3100', '9a978b976931430a878a1d588d291ccf', '00000001', '00000000'];
    expect(payload.toString('hex')).toBe(words.join(''));
  });

  test('to a call that returns nothing is empty', () => {
    expect(encodeReply(asked)).toEqual(message(remote, 306, reply, 7));
  });

  test('does not name a domain by what is no UUID', () => {
    expect(() => finishReply(asked, { name: 'vm1', uuid: 'vm1' })).toThrow(RemoteProtocolError);
  });
});
