/**
 * The host's side of the conversation with a guest's agent: asks for scans, and keeps the cache map that they build.
 *
 *     connect ── HELLO / HELLO_ACK ──> idle ── SCAN ──> DISKS, GROUPS…, REMOVED… ── DONE ──> idle
 *                                                         └── CANCEL ── CANCELLED ──> idle
 */

import { CacheMap, type CacheRuns, countPages } from './cacheMap.js';
import { AgentConnection, type AgentTarget } from './connection.js';
import { createDeferred } from './deferred.js';
import { AgentError, protocolError } from './errors.js';
import {
  type AgentHello,
  decodeDisks,
  decodeDone,
  decodeError,
  decodeGroups,
  decodeRemoved,
  type GuestDisk,
  type ScanSummary,
} from './messages.js';
import { type Frame, frameType } from './protocol.js';

export type { AgentTarget };

const CONNECT_TIMEOUT_MS = 1_500;
/**
 * Shares of that time. A guest that was migrated while its port was full of unread data may not get anything through to
 * its new QEMU until the host side is closed once, which makes QEMU drop what is stuck.
 */
const CONNECT_ATTEMPTS = [0.4, 0.6];
const PING_TIMEOUT_MS = 1_500;
const SCAN_TIMEOUT_MS = 60_000;
/** An agent answers a cancel within 100 ms; one that takes this long is not listening any more. */
const CANCEL_TIMEOUT_MS = 2_000;

export interface ConnectOptions {
  signal?: AbortSignal | undefined;
  /** Until the agent has answered; 1500 ms unless given. */
  timeoutMs?: number;
  /** Bound on the map's memory (some 50 bytes a run); 4 Mi unless given, and at most. */
  maxRuns?: number;
}

export interface ScanOptions {
  /** `changes`: the agent only sends what changed since the last scan of this connection. The result is complete. */
  mode: 'full' | 'changes';
  signal?: AbortSignal | undefined;
  /** For the whole scan; a minute unless given. */
  timeoutMs?: number;
}

/** The complete current cache map, whatever the mode. */
export interface ScanResult {
  disks: GuestDisk[];
  runs: CacheRuns;
  /** Pages in all runs. */
  pages: number;
  /** Resident pages that are in no run, by reason. */
  skipped: Record<string, number>;
  /** How long the agent took. */
  scanMs: number;
  mode: 'full' | 'changes';
  /** Regular files the agent looked at. */
  files: number;
  /** Names it left alone because following them could have read from disk. */
  uncachedNames: number;
  /** Pages of files and block devices in the guest's memory by its kernel's count: what a perfect scan would find. */
  fileCachePages: number;
}

interface Scan {
  request: number;
  disks: GuestDisk[] | undefined;
  settle(outcome: ScanSummary | AgentError | 'cancelled'): void;
}

/** A connection to the agent of one guest. One scan at a time. */
export class AgentClient implements AsyncDisposable {
  /** What the agent said about itself. */
  readonly hello: AgentHello;
  readonly #connection: AgentConnection;
  readonly #map: CacheMap;
  readonly #pings = new Map<number, (error?: AgentError) => void>();
  #disks: GuestDisk[] = [];
  #scan: Scan | undefined;
  #request = 0;

  private constructor(connection: AgentConnection, hello: AgentHello, map: CacheMap) {
    this.hello = hello;
    this.#connection = connection;
    this.#map = map;
    connection.handle({
      onFrame: (frame) => this.#receive(frame),
      onEnd: (cause) => this.#fail(cause),
    });
  }

  /**
   * Connects to a guest's agent port: the path of QEMU's (or libvirt's) unix socket, or a stream that is open already.
   * The stream is destroyed when the client is closed, and when connecting fails.
   * @throws AgentError `VMMIG_AGENT_UNAVAILABLE` when no agent answers in time, `VMMIG_AGENT_VERSION`,
   *   `VMMIG_AGENT_UNSUPPORTED`; the signal's reason when aborted
   */
  static async connect(target: AgentTarget, options: ConnectOptions = {}): Promise<AgentClient> {
    const timeoutMs = options.timeoutMs ?? CONNECT_TIMEOUT_MS;
    const attempts = 'path' in target ? CONNECT_ATTEMPTS : [1];
    for (const share of attempts) {
      const connection = new AgentConnection(target);
      try {
        const hello = await connection.greet(timeoutMs * share, options.signal);
        if (hello) return new AgentClient(connection, hello, new CacheMap(options.maxRuns));
        connection.end(new AgentError('VMMIG_AGENT_DISCONNECTED', 'Nobody answered'));
      } catch (error) {
        connection.end(new AgentError('VMMIG_AGENT_DISCONNECTED', 'The greeting failed', { cause: error }));
        throw error;
      }
    }
    throw new AgentError('VMMIG_AGENT_UNAVAILABLE', `No guest agent answers within ${timeoutMs} ms`);
  }

  /**
   * Scans the guest's page cache.
   * @throws AgentError `VMMIG_AGENT_BUSY` while another scan is under way, `VMMIG_AGENT_TIMEOUT`,
   *   `VMMIG_AGENT_UNSUPPORTED`, `VMMIG_AGENT_PROTOCOL`, `VMMIG_AGENT_DISCONNECTED`; the signal's reason when aborted.
   *   After a timeout or an abort the connection can be used again, unless the agent did not answer the cancel either.
   */
  async scan(options: ScanOptions): Promise<ScanResult> {
    options.signal?.throwIfAborted();
    if (this.#connection.endCause) throw this.#connection.endCause;
    if (this.#scan) throw new AgentError('VMMIG_AGENT_BUSY', 'A scan of this guest is under way already');
    const { promise, resolve, reject } = createDeferred<ScanSummary>();
    let stopReason: unknown;
    let cancelDeadline: NodeJS.Timeout | undefined;
    const request = this.#nextRequest();
    const scan: Scan = {
      request,
      disks: undefined,
      settle: (outcome) => {
        this.#scan = undefined;
        if (stopReason !== undefined) reject(stopReason);
        else if (outcome === 'cancelled') reject(protocolError('a cancelled scan that nobody cancelled'));
        else if (outcome instanceof AgentError) reject(outcome);
        else resolve(outcome);
      },
    };
    const stop = (reason: unknown) => {
      if (stopReason !== undefined) return;
      stopReason = reason;
      this.#connection.send(frameType.cancel, request);
      cancelDeadline = setTimeout(() => {
        this.#connection.end(new AgentError('VMMIG_AGENT_TIMEOUT', 'The guest agent did not answer a cancel'));
      }, CANCEL_TIMEOUT_MS);
    };
    const timeoutMs = options.timeoutMs ?? SCAN_TIMEOUT_MS;
    const timeout = () => stop(new AgentError('VMMIG_AGENT_TIMEOUT', `No cache map within ${timeoutMs} ms`));
    const deadline = setTimeout(timeout, timeoutMs);
    const aborted = () => stop(options.signal?.reason);
    options.signal?.addEventListener('abort', aborted, { once: true });
    this.#scan = scan;
    if (options.mode === 'full') this.#map.clear();
    else this.#map.beginChanges();
    this.#connection.send(frameType.scan, request, Uint8Array.of(options.mode === 'full' ? 1 : 2));
    try {
      return this.#result(await promise, scan.disks ?? []);
    } finally {
      clearTimeout(deadline);
      clearTimeout(cancelDeadline);
      options.signal?.removeEventListener('abort', aborted);
    }
  }

  /**
   * Asks the agent for a sign of life, also during a scan; resolves to the round trip in milliseconds.
   * @throws AgentError `VMMIG_AGENT_TIMEOUT`, `VMMIG_AGENT_DISCONNECTED`, `VMMIG_AGENT_PROTOCOL`
   */
  async ping(options: { timeoutMs?: number } = {}): Promise<number> {
    if (this.#connection.endCause) throw this.#connection.endCause;
    const { promise, resolve, reject } = createDeferred<void>();
    const request = this.#nextRequest();
    const timeoutMs = options.timeoutMs ?? PING_TIMEOUT_MS;
    const timeout = () => reject(new AgentError('VMMIG_AGENT_TIMEOUT', `No answer to a ping within ${timeoutMs} ms`));
    const deadline = setTimeout(timeout, timeoutMs);
    const started = performance.now();
    this.#pings.set(request, (error) => (error ? reject(error) : resolve()));
    this.#connection.send(frameType.ping, request);
    try {
      await promise;
      return performance.now() - started;
    } finally {
      clearTimeout(deadline);
      this.#pings.delete(request);
    }
  }

  /** Closes the connection; the agent stops what it is doing for it. */
  close(): void {
    this.#connection.end(new AgentError('VMMIG_AGENT_DISCONNECTED', 'The connection to the guest agent was closed'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  #nextRequest(): number {
    this.#request = (this.#request + 1) % 2 ** 32;
    return this.#request;
  }

  #result(summary: ScanSummary, disks: GuestDisk[]): ScanResult {
    const runs = this.#map.toRuns();
    const skipped = { ...summary.skipped };
    if (this.#map.droppedPages > 0) skipped['over-limit'] = this.#map.droppedPages;
    return { ...summary, disks, runs, pages: countPages(runs), skipped };
  }

  #fail(cause: AgentError): void {
    for (const settle of this.#pings.values()) settle(cause);
    this.#scan?.settle(cause);
  }

  #receive(frame: Frame): void {
    if (frame.type === frameType.pong) {
      this.#pings.get(frame.request)?.();
    } else if (frame.type === frameType.helloAck) {
      // The answer to a repeated HELLO.
    } else if (this.#scan?.request === frame.request) {
      this.#receiveScan(this.#scan, frame);
    } else if (frame.type !== frameType.cancelled) {
      // A CANCELLED may come after the DONE that it crossed; anything else nobody asked for.
      throw protocolError(`a frame of type ${frame.type} for no request of ours`);
    }
  }

  /** Disks may be added to the list of a session. What groups from earlier scans refer to has to stay as it was. */
  #receiveDisks(scan: Scan, disks: GuestDisk[]): void {
    const kept = this.#disks.every((disk, index) => sameDisk(disk, disks[index]));
    if (scan.disks || !kept) throw protocolError('a list of disks that takes back another');
    this.#disks = disks;
    scan.disks = disks;
  }

  #receiveScan(scan: Scan, frame: Frame): void {
    if (frame.type === frameType.disks) {
      this.#receiveDisks(scan, decodeDisks(frame.payload));
    } else if (frame.type === frameType.groups && scan.disks) {
      decodeGroups(frame.payload, scan.disks, this.#map);
    } else if (frame.type === frameType.removed) {
      decodeRemoved(frame.payload, (id) => this.#map.remove(id));
    } else if (frame.type === frameType.done) {
      scan.settle(decodeDone(frame.payload));
    } else if (frame.type === frameType.cancelled) {
      scan.settle('cancelled');
    } else if (frame.type === frameType.error) {
      scan.settle(scanError(decodeError(frame.payload)));
    } else {
      throw protocolError(`a frame of type ${frame.type} during a scan`);
    }
  }
}

function sameDisk(a: GuestDisk, b: GuestDisk | undefined): boolean {
  return (
    b !== undefined &&
    a.name === b.name &&
    a.serial === b.serial &&
    a.sizeBytes === b.sizeBytes &&
    a.pciAddress === b.pciAddress
  );
}

function scanError(code: number): AgentError {
  if (code === 1) return new AgentError('VMMIG_AGENT_BUSY', 'The guest agent is scanning for someone else');
  if (code === 3) {
    return new AgentError('VMMIG_AGENT_UNSUPPORTED', "The guest's kernel does not tell the agent where its pages are");
  }
  return new AgentError('VMMIG_AGENT_PROTOCOL', `The guest agent refused the scan (error ${code})`);
}
