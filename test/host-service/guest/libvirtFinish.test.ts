import { once } from 'node:events';
import type { Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { FinishAtDestination, FinishAtSource } from '../../../host-service/guest/libvirtFinish.js';
import { finishReply, pong, type RemoteMessage, RemoteMessages } from '../../../hypervisor/index.js';
import { socketPair } from './socketPair.js';

const domain = { name: 'vm1', uuid: '9a978b97-6931-430a-878a-1d588d291ccf' };

/** In libvirt's remote program, but for keepalive. */
function message(procedure: number, type: number, serial: number, { payload = '', program = 0x20008086 } = {}): Buffer {
  const data = Buffer.from(payload, 'hex');
  return Buffer.concat([
    Buffer.from(new Uint32Array([28 + data.length, program, 1, procedure, type, serial, 0]).buffer).swap32(),
    data,
  ]);
}

const call = message(1, 0, 1);
/** No parameters, no cookie, VIR_MIGRATE_LIVE. */
const prepare = message(303, 0, 5, { payload: '000000000000000000000001' });
const finish = message(306, 0, 7, { payload: '00000000000000000000000100000000' });
const ping = message(1, 2, 0, { program: 0x6b656570 });
const answerOf = (to: Buffer): Buffer => finishReply(new RemoteMessages().feed(to)[0] as RemoteMessage, domain);

const sockets: Socket[] = [];

async function pair(): Promise<[Socket, Socket]> {
  const ends = await socketPair();
  sockets.push(...ends);
  return ends;
}

/** What comes next. */
async function next(socket: Socket): Promise<Buffer> {
  const [bytes] = (await once(socket, 'data')) as [Buffer];
  return bytes;
}

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

describe('At the source', () => {
  async function between({ isInFiles = false } = {}) {
    const [virsh, client] = await pair();
    const [remote, destination] = await pair();
    const send = (raw: Buffer) => void remote.write(raw);
    const own = new FinishAtSource({ client, send, opening: null, isInFiles, lost: () => client.destroy() });
    own.hear(remote);
    return { virsh, destination, own };
  }

  test('calls and answers are passed on, and the question whether to run the guest is noticed', async () => {
    const { virsh, destination, own } = await between();
    virsh.write(call);
    expect(await next(destination)).toEqual(call);
    destination.write(answerOf(call));
    expect(await next(virsh)).toEqual(answerOf(call));
    expect(own.isAsked).toBe(false);
    virsh.write(finish);
    await own.asked;
    expect(own.isAsked).toBe(true);
    expect(await next(destination)).toEqual(finish);
  });

  test('virsh is told yes when the guest runs, and takes its leave without the destination', async () => {
    const { virsh, destination, own } = await between();
    own.confirm(domain);
    virsh.write(finish);
    expect(await next(destination)).toEqual(finish);
    own.confirm(domain);
    own.confirm(domain);
    expect(await next(virsh)).toEqual(answerOf(finish));
    // The destination's own answer, which comes when all memory is there, is nobody's business any more.
    destination.write(answerOf(finish));
    virsh.write(message(2, 0, 8));
    expect(await next(virsh)).toEqual(message(2, 1, 8));
    expect(destination.bytesRead).toBe(finish.length);
  });

  describe('of a guest whose memory is kept in files', () => {
    const prepared = message(303, 1, 5, { payload: '0000000000000000' });

    test('only the destination’s daemon takes it for post-copy', async () => {
      const { virsh, destination } = await between({ isInFiles: true });
      virsh.write(prepare);
      expect(await next(destination)).toEqual(message(303, 0, 5, { payload: '000000000000000000008001' }));
      virsh.write(finish);
      expect(await next(destination)).toEqual(message(306, 0, 7, { payload: '00000000000000000000800100000000' }));
    });

    test('virsh goes on when the guest may', async () => {
      const { virsh, destination, own } = await between({ isInFiles: true });
      const preparation = own.preparation!;
      virsh.write(Buffer.concat([call, prepare]));
      await next(destination);
      destination.write(Buffer.concat([answerOf(call), prepared]));
      await preparation.ready;
      expect(preparation.isHolding).toBe(true);
      expect(await next(virsh)).toEqual(answerOf(call));
      preparation.depart();
      expect(await next(virsh)).toEqual(prepared);
      expect(preparation.isHolding).toBe(false);
    });

    test('virsh is told at once that the destination will not have it', async () => {
      const { virsh, destination, own } = await between({ isInFiles: true });
      virsh.write(prepare);
      await next(destination);
      const refused = Buffer.from(prepared);
      refused.writeUInt32BE(1, 24);
      destination.write(refused);
      expect(await next(virsh)).toEqual(refused);
      expect(own.preparation!.isHolding).toBe(false);
    });
  });

  test('what is not libvirt’s protocol ends it', async () => {
    const { virsh } = await between();
    const closed = once(virsh, 'close');
    virsh.resume();
    virsh.write('\0\0\0\0SASL');
    await closed;
  });
});

describe('At the destination', () => {
  async function between() {
    const [source, remote] = await pair();
    const [near, daemon] = await pair();
    return { source, daemon, own: new FinishAtDestination(remote, near, () => remote.destroy()) };
  }

  test('everything is passed on but the question whether to run the guest', async () => {
    const { source, daemon, own } = await between();
    source.write(Buffer.concat([call, finish]));
    expect(await own.held).toEqual(finish);
    expect(await next(daemon)).toEqual(call);
    daemon.write(answerOf(call));
    expect(await next(source)).toEqual(answerOf(call));
    expect(daemon.bytesRead).toBe(call.length);
  });

  test('the daemon gets its signs of life also when the source is gone', async () => {
    const { source, daemon, own } = await between();
    source.write(finish);
    await own.held;
    source.destroy();
    daemon.write(ping);
    expect(await next(daemon)).toEqual(pong());
    daemon.write(answerOf(finish));
    await own.answered;
  });
});
