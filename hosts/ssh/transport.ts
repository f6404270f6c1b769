/** The byte stream that SSH runs over: a TCP connection, a ProxyCommand's stdio, or a channel of another SSH session. */
import { connect } from 'node:net';
import { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { execa } from 'execa';
import { HostError } from '../errors.js';
import { OutputTail } from '../process.js';
import type { SshTarget } from './target.js';

const STDERR_GRACE_MS = 200;

export interface Transport extends AsyncDisposable {
  /** May still be connecting. */
  readonly stream: Duplex;
  /** In both directions, as they left and reached this machine. */
  bytesOnWire(): number;
  /** More about why it failed, if it knows. */
  diagnosis(): string;
}

export function openTcp(target: SshTarget): Transport {
  const socket = connect({ host: target.hostName, port: target.port, noDelay: true });
  return {
    stream: socket,
    bytesOnWire: () => socket.bytesRead + socket.bytesWritten,
    diagnosis: () => '',
    async [Symbol.asyncDispose]() {
      socket.destroy();
    },
  };
}

/** As OpenSSH: the user's shell runs the command, which the shell is to become. */
export function openProxyCommand(target: SshTarget, command: string): Transport {
  const shell = process.env.SHELL || '/bin/sh';
  const child = execa(shell, ['-c', `exec ${command}`], {
    stdin: 'pipe',
    buffer: false,
    reject: false,
    encoding: 'buffer',
  });
  const stderr = new OutputTail();
  child.stderr.on('data', (chunk: Buffer) => stderr.append(chunk));
  let bytes = 0;
  const stream = new Duplex({
    read: () => void child.stdout.resume(),
    write(chunk: Buffer, _encoding, done) {
      bytes += chunk.length;
      child.stdin.write(chunk, () => done());
    },
    final: (done) => void child.stdin.end(() => done()),
    destroy(error, done) {
      child.kill();
      done(error);
    },
  });
  child.stdout.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (!stream.push(chunk)) child.stdout.pause();
  });
  child.stdin.on('error', () => {}); // its end is told by stdout, and why by stderr
  // Most commands say on stderr why they ended; it may come a moment after the end of stdout.
  const said = new Promise((resolve) => child.stderr.once('end', resolve));
  child.stdout.once('end', () => {
    void Promise.race([said, delay(STDERR_GRACE_MS, undefined, { ref: false })]).then(() => stream.push(null));
  });
  void child.then(({ code }) => {
    if (code) stream.destroy(new HostError('VMMIG_SSH_UNREACHABLE', target.name, `${shell} cannot be run: ${code}`));
  });
  return {
    stream,
    bytesOnWire: () => bytes,
    diagnosis: () => stderr.toString().trim(),
    async [Symbol.asyncDispose]() {
      stream.destroy();
      await child;
    },
  };
}
