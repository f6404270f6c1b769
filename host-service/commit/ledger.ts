/**
 * What a host knows of a migration that it takes part in, for a service that comes after the one that is at work, and
 * for `vmmig status` and `vmmig recover` from any machine. It is as mortal as QEMU: a host that restarts forgets both.
 *
 *   RUNDIR/ID/ledger-ROLE.json   the facts, replaced whole
 *   RUNDIR/ID/decision-ROLE      what was decided at the commit point: decision.ts
 *
 * Whatever is found there is read as hostile: it names processes, sockets and a key.
 */
import { randomUUID } from 'node:crypto';
import { chmod, mkdir, readdir, rename, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import { decisionPath } from './decision.js';
import { LedgerError } from './ledgerError.js';
import { readGuarded, syncDirectory, writeSynced } from './ledgerFiles.js';

/**
 * As far as this host knows. The commit point itself is in the decision. `lost`: what the guest that runs here still needed
 * is nowhere any more, and the service waits for its end.
 */
export const ledgerPhases = ['preparing', 'moving', 'committing', 'pulling', 'lost', 'ended'] as const;

const id = z.string().regex(/^[\w-]{1,64}$/);
const text = z.string().min(1).max(4096);
const path = text.regex(/^\/[^\0]*$/);
const moment = z.iso.datetime();
const processSchema = z.strictObject({ pid: z.int().positive(), startTime: z.int().nonnegative() });
const port = z.int().min(1).max(65535);
const bootId = z.string().regex(/^[\da-f-]{36}$/);

const ledgerSchema = z.strictObject({
  schema: z.literal('vmmig.ledger/1'),
  migrationId: id,
  role: z.enum(['source', 'destination']),
  mode: z.enum(['teleport', 'switch']),
  phase: z.enum(ledgerPhases),
  beganAt: moment,
  changedAt: moment,
  /** From /proc/sys/kernel/random/boot_id: what was noted before the host restarted says nothing about now. */
  bootId,
  guest: z.strictObject({
    name: text,
    /** Empty where libvirt has the monitor. */
    qmpPath: z.union([path, z.literal('')]),
    agentPath: path.nullable(),
    libvirt: z.strictObject({ uri: text, domain: text }).optional(),
    /** The QEMU of this host's part; null while it is not started. */
    process: processSchema.nullable(),
  }),
  /** The service that is at work here. */
  service: processSchema.nullable(),
  /** The other host, as the command called it; where its ledger is; its boot, as far as it is known. */
  peer: z.strictObject({ host: text, runDir: path, bootId: bootId.nullable() }),
  /** How the relays meet; the key is 32 bytes. */
  link: z.strictObject({ host: text, port, key: z.base64().length(44) }).nullable(),
  /** What another service at the destination needs besides, should the one that is at work there die. */
  takeOver: z
    .strictObject({
      /** As references number them. */
      disks: z.array(z.strictObject({ path, format: text, keyFile: text.optional() })),
      ports: z.tuple([port, port]).nullable(),
      /** In bytes, of the RAM blocks that do not lie in small pages. */
      pageSizes: z.record(text, z.int().positive()),
      /** QEMU's, as they were before the migration. */
      capabilities: z.record(text, z.boolean()),
      reconnectTimeoutMs: z.number().positive(),
    })
    .optional(),
  /**
   * What another service at the source needs, should the one that is at work there die: the guest's memory is in files
   * that outlive it.
   */
  memory: z
    .strictObject({
      /** The link's. */
      key: z.base64().length(44),
      connections: z.int().min(1).max(16),
      bandwidthBps: z.number().positive().nullable(),
      compress: z.boolean(),
      reconnectTimeoutMs: z.number().positive(),
      blocks: z.array(
        z.strictObject({
          name: text,
          lengthBytes: z.int().nonnegative(),
          /** Null: what came of it through QEMU's stream is in the file `capture`. */
          file: z
            .strictObject({ path, offset: z.int().nonnegative(), device: z.string(), inode: z.string() })
            .nullable(),
        }),
      ),
    })
    .optional(),
});

export type Ledger = z.infer<typeof ledgerSchema>;
export type LedgerRole = Ledger['role'];
/** What changes while a migration goes on. */
export type LedgerChanges = Partial<Pick<Ledger, 'phase' | 'service' | 'link' | 'takeOver' | 'memory'>> & {
  readonly process?: Ledger['guest']['process'];
  readonly peerBootId?: string;
};

export interface LedgerListing {
  readonly ledgers: readonly Ledger[];
  /** What lies there and is no ledger of ours: to be told, never to be acted on. */
  readonly unreadable: readonly { readonly path: string; readonly reason: string }[];
}

const roles = ['source', 'destination'] as const;
const ledgerPath = (runDir: string, migrationId: string, role: LedgerRole) =>
  join(runDir, migrationId, `ledger-${role}.json`);

/** Changes to one ledger, one after the other. Two processes do not share one: a later service replaces it. */
const queues = new Map<string, Promise<void>>();

/**
 * Writes a host's ledger, whole or not at all, and on disk when it resolves.
 * @throws LedgerError VMMIG_LEDGER_WRITE, VMMIG_LEDGER_INVALID
 */
export async function writeLedger(runDir: string, ledger: Ledger): Promise<void> {
  const target = ledgerPath(runDir, ledger.migrationId, ledger.role);
  await inTurn(target, () => replace(runDir, ledger));
}

/**
 * Changes parts of a ledger; changes made at once all take effect.
 * @throws LedgerError VMMIG_LEDGER_INVALID when there is none to change, VMMIG_LEDGER_WRITE
 */
export async function updateLedger(
  runDir: string,
  { migrationId, role }: Pick<Ledger, 'migrationId' | 'role'>,
  { process, peerBootId, ...changes }: LedgerChanges,
): Promise<void> {
  const target = ledgerPath(runDir, migrationId, role);
  await inTurn(target, async () => {
    const old = await readLedger(runDir, migrationId, role);
    if (old === null) throw new LedgerError('VMMIG_LEDGER_INVALID', `there is no ledger ${target}`);
    await replace(runDir, {
      ...old,
      ...changes,
      changedAt: new Date().toISOString(),
      guest: process === undefined ? old.guest : { ...old.guest, process },
      peer: peerBootId === undefined ? old.peer : { ...old.peer, bootId: peerBootId },
    });
  });
}

/**
 * One host's ledger of a migration; null when there is none.
 * @throws LedgerError VMMIG_LEDGER_INVALID
 */
export async function readLedger(runDir: string, migrationId: string, role: LedgerRole): Promise<Ledger | null> {
  const file = ledgerPath(runDir, id.parse(migrationId), role);
  const content = await readGuarded(file);
  if (content === null) return null;
  const ledger = parsed(content, file);
  if (ledger.migrationId !== migrationId || ledger.role !== role)
    throw new LedgerError('VMMIG_LEDGER_INVALID', `${file} is about another migration or role`);
  return ledger;
}

/** All ledgers of a host, the oldest migration first. A run directory that is not there has none. */
export async function readLedgers(runDir: string): Promise<LedgerListing> {
  const names = await readdir(runDir).catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code === 'ENOENT') return [];
    throw new LedgerError('VMMIG_LEDGER_INVALID', `cannot list ${runDir}: ${thrown.message}`, { cause: thrown });
  });
  const ledgers: Ledger[] = [];
  const unreadable: { path: string; reason: string }[] = [];
  for (const migrationId of names.filter((name) => id.safeParse(name).success).sort()) {
    for (const role of roles) {
      try {
        const ledger = await readLedger(runDir, migrationId, role);
        if (ledger !== null) ledgers.push(ledger);
      } catch (thrown) {
        if (!(thrown instanceof LedgerError)) throw thrown;
        unreadable.push({ path: ledgerPath(runDir, migrationId, role), reason: thrown.message });
      }
    }
  }
  return { ledgers, unreadable };
}

/**
 * Removes a host's records of a migration, and its directory when nothing else is in it. The decision goes last: a
 * ledger without its decision would look like a migration in which nothing had been decided.
 */
export async function removeLedger(runDir: string, migrationId: string, role: LedgerRole): Promise<void> {
  const target = ledgerPath(runDir, id.parse(migrationId), role);
  await inTurn(target, async () => {
    const directory = join(runDir, migrationId);
    await rm(target, { force: true });
    await syncDirectory(directory).catch(() => {});
    await rm(decisionPath(runDir, migrationId, role), { force: true });
    await removeDrafts(directory, role);
    // Fails while something else is in it.
    await rmdir(directory).catch(() => {});
  });
}

/** What a service that was killed while it wrote has left. */
async function removeDrafts(directory: string, role: LedgerRole): Promise<void> {
  const names = await readdir(directory).catch(() => []);
  const drafts = names.filter((name) => new RegExp(`^(ledger-${role}\\.json|decision-${role})\\.`).test(name));
  for (const name of drafts) await rm(join(directory, name), { force: true });
}

async function replace(runDir: string, ledger: Ledger): Promise<void> {
  const target = ledgerPath(runDir, ledger.migrationId, ledger.role);
  const checked = parsed(JSON.stringify(ledger), target);
  const directory = join(runDir, checked.migrationId);
  const draft = `${target}.${randomUUID()}`;
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await chmod(directory, 0o700);
    await writeSynced(draft, `${JSON.stringify(checked, null, 2)}\n`);
    await rename(draft, target);
    await syncDirectory(directory);
  } catch (cause) {
    throw new LedgerError('VMMIG_LEDGER_WRITE', `cannot write ${target}: ${(cause as Error).message}`, { cause });
  } finally {
    await rm(draft, { force: true }).catch(() => {});
  }
}

function parsed(content: string, file: string): Ledger {
  let json: unknown;
  try {
    json = JSON.parse(content);
  } catch (cause) {
    throw new LedgerError('VMMIG_LEDGER_INVALID', `${file} is not JSON`, { cause });
  }
  const result = ledgerSchema.safeParse(json);
  if (result.success) return result.data;
  const fields = result.error.issues.map((issue) => issue.path.join('.') || 'the whole').join(', ');
  throw new LedgerError('VMMIG_LEDGER_INVALID', `${file} is no ledger: ${fields}`, { cause: result.error });
}

async function inTurn(target: string, work: () => Promise<void>): Promise<void> {
  const before = queues.get(target) ?? Promise.resolve();
  const mine = before.catch(() => {}).then(work);
  queues.set(target, mine);
  try {
    await mine;
  } finally {
    if (queues.get(target) === mine) queues.delete(target);
  }
}
