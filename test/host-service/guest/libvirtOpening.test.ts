import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { AnsweredOpening, opensAsUsual, PacedOpening } from '../../../host-service/guest/libvirtOpening.js';
import {
  encodeCall,
  encodeReply,
  type RemoteMessage,
  RemoteMessages,
  RemoteProtocolError,
} from '../../../hypervisor/index.js';

const hex = (text: string) => Buffer.from(text, 'hex');
/** What virsh asks of any daemon, and what it is answered: procedure, payloads. */
const exchanges: readonly (readonly [number, Buffer, Buffer])[] = [
  [66, hex(''), hex('0000000100000000')],
  [60, hex('0000000a'), hex('00000001')],
  [1, hex('000000010000000e71656d753a2f2f2f73797374656d000000000000'), hex('')],
  [60, hex('0000000e'), hex('00000001')],
  [60, hex('0000000f'), hex('00000001')],
  [60, hex('0000000d'), hex('00000001')],
];
const parsed = (raw: Buffer): RemoteMessage => new RemoteMessages().feed(raw)[0]!;
const calls = exchanges.map(([procedure, asked], serial) => parsed(encodeCall(procedure, serial, asked)));
const answers = exchanges.map(([, , answered], at) => parsed(encodeReply(calls[at]!, answered)));
const another = parsed(encodeCall(303, 6, hex('000000000000000000000001')));

describe('A daemon is asked beforehand', () => {
  async function daemon(answer: (call: RemoteMessage) => Buffer | null): Promise<string> {
    const directory = await mkdtemp(join(tmpdir(), 'vmmig-opening-'));
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket);
      const messages = new RemoteMessages();
      socket.on('data', (bytes) => {
        for (const message of messages.feed(bytes)) {
          const said = answer(message);
          if (said === null) socket.destroy();
          else socket.write(said);
        }
      });
    });
    const path = join(directory, 'daemon');
    await new Promise<void>((resolve) => server.listen(path, resolve));
    onTestFinished(async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await rm(directory, { recursive: true, force: true });
    });
    return path;
  }

  const usual = (call: RemoteMessage) => answers[call.serial]!.raw;

  test('and is like all others', async () => {
    expect(await opensAsUsual(await daemon(usual))).toBe(true);
  });

  test.each([
    ['wants to know who one is', 0, encodeReply(calls[0]!, hex('0000000100000001'))],
    ['does not know a feature', 5, encodeReply(calls[5]!, hex('00000000'))],
    ['hangs up', 2, null],
    ['says something else', 1, Buffer.from('HTTP/1.1 400 Bad Request')],
  ])('and %s', async (_, at, said) => {
    expect(await opensAsUsual(await daemon((call) => (call.serial === at ? said : usual(call))))).toBe(false);
  });

  test('and is not there', async () => {
    expect(await opensAsUsual('/nonexistent/libvirt-sock')).toBe(false);
  });
});

describe('virsh', () => {
  test('is told what the daemon says to begin with, and the rest by the daemon', () => {
    const opening = new AnsweredOpening();
    for (const [at, call] of calls.entries()) expect(opening.answer(call)).toEqual(answers[at]!.raw);
    expect(opening.answer(another)).toBeNull();
    for (const answer of answers) expect(opening.hasTold(answer)).toBe(true);
    expect(opening.hasTold(parsed(encodeReply(another)))).toBe(false);
  });

  test('is told nothing of what is not known', () => {
    const opening = new AnsweredOpening();
    expect(opening.answer(parsed(encodeCall(60, 1, hex('0000000b'))))).toBeNull();
    expect(opening.hasTold(parsed(encodeReply(calls[1]!, hex('00000000'))))).toBe(false);
  });

  test('is not left with what turns out to be wrong', () => {
    const opening = new AnsweredOpening();
    opening.answer(calls[1]!);
    expect(() => opening.hasTold(parsed(encodeReply(calls[1]!, hex('00000000'))))).toThrow(RemoteProtocolError);
  });
});

test('A daemon gets one call at a time until it knows who asks', () => {
  const sent: Buffer[] = [];
  const opening = new PacedOpening((raw) => sent.push(raw));
  for (const call of [...calls, another]) opening.call(call);
  for (const [at, answer] of answers.entries()) {
    expect(sent).toEqual(calls.slice(0, at + 1).map(({ raw }) => raw));
    opening.heard(answer);
    opening.heard(answer);
  }
  expect(sent).toEqual([...calls, another].map(({ raw }) => raw));
});
