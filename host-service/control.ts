/**
 * The way to a service that is at work, for one that was started later: `vmmig status` and `vmmig recover` ask through
 * it after the command that began is gone. A socket in the migration's directory, for root alone.
 */
import { rm } from 'node:fs/promises';
import { createConnection, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { connectRpc, type RpcClient, type RpcHandler, serveRpc } from '../hosts/rpc.js';
import type { Endpoint } from '../relay/link/connection.js';
import type { Role } from './commit/index.js';

export interface Control extends AsyncDisposable {}

export interface ControlHandlers {
  /** Whatever the relay tells of itself. */
  status(): Promise<object>;
  /** Resolves with what came of the pull when all of the guest's memory is in one place. */
  pulled(): Promise<object>;
  /** At the source: another destination relay waits there, or, with null, the destination needs nothing any more. */
  reconnect?(endpoint: Endpoint | null): Promise<void>;
  /** At the destination: another source relay is to come. @returns where it is awaited */
  awaitSource?(): Promise<{ readonly port: number }>;
  /** At the destination: the source has nothing of the guest any more. */
  conclude?(): Promise<void>;
  /** An event for the commit point. */
  post(params: { readonly event: string }): Promise<{ readonly state: string }>;
}

const connectTimeoutMs = 5_000;
const lastAnswersMs = 1_000;
/** From an answer's being there to its being in the socket. */
const writingMs = 20;
const pathOf = (runDir: string, migrationId: string, role: Role) => join(runDir, migrationId, `control-${role}`);

export async function serveControl(
  runDir: string,
  migrationId: string,
  role: Role,
  handlers: ControlHandlers,
): Promise<Control> {
  const path = pathOf(runDir, migrationId, role);
  const sockets = new Set<Socket>();
  const underWay = new Set<Promise<object>>();
  const answer = async (asked: Promise<object>): Promise<object> => {
    underWay.add(asked);
    try {
      return await asked;
    } finally {
      underWay.delete(asked);
    }
  };
  const methods: Record<string, RpcHandler> = {
    status: () => answer(handlers.status()),
    pulled: () => answer(handlers.pulled()),
    post: (params) => answer(handlers.post(params as { event: string })),
    reconnect: async (params) => {
      await handlers.reconnect?.((params as { endpoint: Endpoint | null }).endpoint);
      return {};
    },
    conclude: async () => {
      await handlers.conclude?.();
      return {};
    },
  };
  const { awaitSource } = handlers;
  if (awaitSource !== undefined) methods.awaitSource = () => awaitSource();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    serveRpc(socket, socket, methods);
  });
  await rm(path, { force: true });
  const previousMask = process.umask(0o177);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
  } finally {
    process.umask(previousMask);
  }
  return {
    async [Symbol.asyncDispose]() {
      // Whoever waits for the end gets to know it.
      await Promise.race([Promise.allSettled(underWay), delay(lastAnswersMs)]);
      if (sockets.size > 0) await delay(writingMs);
      for (const socket of sockets) socket.destroySoon();
      await new Promise((resolve) => server.close(resolve));
      await rm(path, { force: true });
    },
  };
}

/** The service that is at work on a migration here; null when there is none any more. */
export async function connectControl(runDir: string, migrationId: string, role: Role): Promise<RpcClient | null> {
  const socket = createConnection({ path: pathOf(runDir, migrationId, role) });
  const isThere = await new Promise<boolean>((resolve) => {
    socket.once('connect', () => resolve(true));
    socket.once('error', () => resolve(false));
  });
  if (!isThere) return null;
  try {
    return await connectRpc(socket, socket, { timeoutMs: connectTimeoutMs });
  } catch {
    socket.destroy();
    return null;
  }
}
