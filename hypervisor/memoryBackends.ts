/**
 * Which of a running guest's RAM blocks are kept in a file that others can open, and which file that is. What the
 * command line says is not enough: the file may have been removed or replaced, `mem-path` may be a directory, and all
 * memfds have one name. So each block's address in QEMU is asked for, and /proc tells what is mapped there.
 *
 * The `info ramblock` of older versions has no addresses. HMP `gpa2hva` has, for memory that the guest can see.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { QmpCommandError } from '../qmp/index.js';
import { type GpaRange, parseGpaMap } from './gpaMap.js';
import type { GuestInspection } from './inspection.js';
import { hostAddress } from './physicalMemory.js';
import type { QmpMonitor } from './qmpMonitor.js';
import { parseRamBlocks } from './ramBlocks.js';

export interface MemoryBackendFile {
  /** The RAM block's name, as in the migration stream. */
  readonly block: string;
  readonly lengthBytes: number;
  /** Opens the file while QEMU runs: its name, or `/proc/PID/fd/N` where it has none; null when nothing is shared. */
  readonly path: string | null;
  /** Where in the file the block begins. */
  readonly fileOffset: number;
  /** Of the host's backing memory: 4096, or the size of a huge page. */
  readonly pageSizeBytes: number;
  /** Whether what the guest writes is seen in the file. */
  readonly shared: boolean;
  readonly kind: 'file' | 'memfd' | 'anonymous';
  /** The file is persistent memory: its contents outlive the guest. */
  readonly pmem: boolean;
  /**
   * Whether QEMU leaves the block out of its stream with `x-ignore-shared`: since 8.1 only what is in a named file, before
   * that everything shared.
   */
  readonly leftOut: boolean;
}

/** A QOM object that blocks are made from. */
interface Backend {
  /** The type without `memory-backend-`. */
  readonly type: string;
  readonly block: string;
  readonly memPath: string | null;
  readonly pmem: boolean;
}

interface Mapping {
  readonly start: number;
  readonly end: number;
  readonly shared: boolean;
  readonly offset: number;
  readonly inode: number;
  readonly name: string;
}

/**
 * All blocks that QEMU has, in its order. Runs on the guest's host, as a user who may look at QEMU's process.
 * @param process QEMU's
 * @param known what need not be asked for again
 */
export async function memoryBackends(
  qmp: QmpMonitor,
  process: { readonly pid: number },
  {
    known,
    signal,
  }: { readonly known?: Pick<GuestInspection, 'memory' | 'qemuVersion'>; readonly signal?: AbortSignal } = {},
): Promise<readonly MemoryBackendFile[]> {
  const [{ major, minor }, memory, backends] = await Promise.all([
    known?.qemuVersion ?? qmp.execute('query-version', {}, { signal }).then(({ qemu }) => qemu),
    known === undefined ? lookAtMemory(qmp, signal) : { ...known.memory, addresses: new Map<string, number>() },
    listBackends(qmp, signal),
  ]);
  const leavesOutNamedOnly = major > 8 || (major === 8 && minor >= 1);
  const { blocks, addresses, gpaMap } = memory;
  const mappings = parseMappings(await readFile(`/proc/${process.pid}/maps`, 'utf8'));
  const result: MemoryBackendFile[] = [];
  for (const { name, usedBytes: lengthBytes, pageSizeBytes } of blocks) {
    if (name.trim() === '') continue; // A backend that no device uses: it is not the guest's memory.
    const common = { block: name, lengthBytes, pageSizeBytes };
    const none = { ...common, path: null, fileOffset: 0, shared: false, kind: 'anonymous', pmem: false } as const;
    const backend = backends.find(({ block }) => block === name);
    const address = addresses.get(name) ?? (backend && (await addressInGuest(qmp, gpaMap, name, signal)));
    const mapping = mappings.find(({ start, end }) => address !== undefined && address >= start && address < end);
    if (backend === undefined || address === undefined || mapping === undefined) {
      result.push({ ...none, leftOut: false });
      continue;
    }
    const { shared, inode } = mapping;
    const kind = mapping.name.startsWith('/memfd:') ? 'memfd' : backend.type === 'file' ? 'file' : 'anonymous';
    const path = !shared ? null : await openablePath(process.pid, inode, lengthBytes, backend.memPath);
    result.push({
      ...common,
      path,
      fileOffset: mapping.offset + address - mapping.start,
      shared,
      kind,
      pmem: backend.pmem,
      leftOut: shared && (backend.type === 'file' || !leavesOutNamedOnly),
    });
  }
  return result;
}

/**
 * Whether the guest can be captured with `x-ignore-shared`, its memory being read from files: QEMU must leave something
 * out, and nothing that has no file.
 */
export function isInFiles(backends: readonly MemoryBackendFile[]): boolean {
  const leftOut = backends.filter((backend) => backend.leftOut);
  return leftOut.length > 0 && leftOut.every(({ path }) => path !== null);
}

async function lookAtMemory(
  qmp: QmpMonitor,
  signal?: AbortSignal,
): Promise<Pick<GuestInspection['memory'], 'blocks' | 'gpaMap'> & { readonly addresses: ReadonlyMap<string, number> }> {
  const monitor = (line: string) => qmp.execute('human-monitor-command', { 'command-line': line }, { signal });
  const [ramblock, mtree] = await Promise.all([monitor('info ramblock'), monitor('info mtree -f')]);
  const blocks = parseRamBlocks(ramblock);
  return { blocks, addresses: parseAddresses(ramblock), gpaMap: parseGpaMap(mtree, blocks) };
}

async function listBackends(qmp: QmpMonitor, signal?: AbortSignal): Promise<Backend[]> {
  const objects = await qmp.execute('qom-list', { path: '/objects' }, { signal });
  const found = objects.flatMap(({ name, type }) => {
    const [, kind] = /^child<memory-backend-(.+)>$/.exec(type) ?? [];
    return kind === undefined ? [] : [{ name, kind }];
  });
  return Promise.all(
    found.map(async ({ name, kind }) => {
      const path = `/objects/${name}`;
      const get = (property: string): Promise<unknown> =>
        qmp.execute('qom-get', { path, property }, { signal }).catch((error: unknown) => {
          if (error instanceof QmpCommandError) return null; // this kind, or this QEMU, does not have it
          throw error;
        });
      const [longName, memPath, pmem] = await Promise.all([
        get('x-use-canonical-path-for-ramblock-id'),
        get('mem-path'),
        get('pmem'),
      ]);
      return {
        type: kind,
        block: longName === true ? path : name,
        memPath: typeof memPath === 'string' ? memPath : null,
        pmem: pmem === true,
      };
    }),
  );
}

/** `… HVA  RO`: the last columns of `info ramblock`, where they are. */
function parseAddresses(ramblock: string): Map<string, number> {
  const rows = ramblock.matchAll(/^ *(\S.*?) +\d+ (?:[KMGT]i)?B(?: +0x[0-9a-f]+){3} +0x([0-9a-f]+) +r[ow]/gm);
  return new Map(Array.from(rows, ([, name, address]) => [name!, Number.parseInt(address!, 16)]));
}

/** By the first address of the block that the guest can see. */
async function addressInGuest(
  qmp: QmpMonitor,
  gpaMap: readonly GpaRange[],
  block: string,
  signal?: AbortSignal,
): Promise<number | undefined> {
  const range = gpaMap.find((one) => one.block === block);
  const address = range === undefined ? null : await hostAddress(qmp, range.gpaStart, signal);
  return address === null ? undefined : address - range!.blockOffset;
}

/** `7fa427fff000-7fa42bfff000 rw-s 00000000 fe:00 2171032    /dev/shm/vm1.ram (deleted)` (proc_pid_maps(5)) */
function parseMappings(maps: string): Mapping[] {
  const rows = maps.matchAll(/^([0-9a-f]+)-([0-9a-f]+) ...([sp]) ([0-9a-f]+) \S+ (\d+) *(.*)$/gm);
  return Array.from(rows, ([, start, end, sharing, offset, inode, name]) => ({
    start: Number.parseInt(start!, 16),
    end: Number.parseInt(end!, 16),
    shared: sharing === 's',
    offset: Number.parseInt(offset!, 16),
    inode: Number(inode),
    name: name!,
  }));
}

/**
 * QEMU keeps its files open. The name is preferred because it outlives QEMU, as long as it still means this very file.
 * `/proc/PID/maps` gives the device numbers of the file system's superblock, which need not be those of `stat`: files are
 * told apart by inode and by being large enough, and named ones by what the descriptor says.
 */
async function openablePath(
  pid: number,
  inode: number,
  lengthBytes: number,
  memPath: string | null,
): Promise<string | null> {
  const descriptors = await readdir(`/proc/${pid}/fd`);
  for (const fd of descriptors) {
    const path = `/proc/${pid}/fd/${fd}`;
    const open = await stat(path).catch(() => null);
    if (open === null || !open.isFile() || open.ino !== inode || open.size < lengthBytes) continue;
    const named = memPath === null ? null : await stat(memPath).catch(() => null);
    return named?.ino === open.ino && named.dev === open.dev ? memPath : path;
  }
  return null;
}
