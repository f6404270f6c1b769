/** Streams captured from real QEMUs: what every claim about the format is checked against. */
import { once } from 'node:events';
import { mkdtemp, readFile } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { QemuVersion } from '../../lab/qemu.js';
import { encodeReturnPath, StreamDecoder, splitTail } from '../../stream/index.js';
import { type Guest, type GuestOptions, SMALL, startGuest } from './guest.js';

export interface Kind extends GuestOptions {
  readonly what: string;
  /** Capture through a socket: QEMU wants a return path with post-copy. */
  readonly socket?: boolean;
}

/** @param directory for memory files */
export function kinds(directory: string): Kind[] {
  const memory = `memory-backend-file,id=m0,size=64M,mem-path=${join(directory, 'ram')},share=on`;
  return [
    { what: 'a small guest', args: SMALL },
    {
      what: 'a guest with devices',
      args: [
        ...SMALL,
        ...['-device', 'VGA', '-device', 'qemu-xhci', '-device', 'virtio-net-pci', '-smp', '2'],
        ...['-blockdev', 'null-co,node-name=d0,size=1048576', '-device', 'virtio-blk-pci,drive=d0'],
        ...['-device', 'virtio-serial-pci', '-device', 'virtserialport,name=org.vmmig.agent.0', '-serial', 'null'],
      ],
    },
    {
      what: 'a guest in a shared memory file',
      args: ['-object', memory, '-machine', 'q35,memory-backend=m0', '-m', '64'],
      capabilities: ['x-ignore-shared'],
    },
    { what: 'a guest that may go post-copy', args: SMALL, capabilities: ['postcopy-ram'], socket: true },
    { what: 'a guest with memory above 4 GiB', args: ['-machine', 'q35', '-m', '5G'] },
  ];
}

export interface Capture {
  readonly stream: Buffer;
  /** The guest's memory when it was stopped. */
  readonly memory: Buffer;
}

/** Migrates a guest of that kind into a file or a socket. */
export async function capture(version: QemuVersion, kind: Kind, directory: string): Promise<Capture> {
  await using guest = await startGuest(version, directory, kind);
  // Let the firmware write about in its memory.
  await setTimeout(300);
  await guest.qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 });
  const path = await mkdtemp(join(directory, 'capture-'));
  const stream = await (kind.socket ? throughSocket : throughFile)(guest, join(path, 'stream'));
  return { stream, memory: await guest.memory() };
}

async function throughFile(guest: Guest, path: string): Promise<Buffer> {
  await guest.qmp.execute('migrate', { uri: `exec:cat > ${path}` });
  await guest.migration('completed');
  return await readFile(path);
}

async function throughSocket(guest: Guest, path: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    const tail: Buffer[] = [];
    const decoder = new StreamDecoder({
      page() {},
      zeroPage() {},
      tail: (bytes) => void tail.push(Buffer.from(bytes)),
    });
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      chunks.push(chunk);
      decoder.feed(chunk);
      // The source waits for this at its end, and fails if it comes any earlier.
      if (isWhole(Buffer.concat(tail))) socket.write(encodeReturnPath({ type: 'shut', value: 0 }));
    });
  });
  try {
    await once(server.listen(path), 'listening');
    await guest.qmp.execute('migrate', { uri: `unix:${path}` });
    await guest.migration('completed');
    await Promise.all(sockets.map((socket) => socket.readableEnded || once(socket, 'end')));
    return Buffer.concat(chunks);
  } finally {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

function isWhole(tail: Buffer): boolean {
  try {
    return splitTail(tail).vmdesc !== null;
  } catch {
    return false;
  }
}
