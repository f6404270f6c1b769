/** What the hosts know of migrations that are not over: from any machine, whoever began them and is gone. */
import { call, type HostedMigration } from '../host-service/protocol.js';
import { type Inventory, type InventoryHost, resolveHost } from '../hosts/index.js';
import { openSide } from './sides.js';

/** One host's part in a migration. */
export interface Part {
  readonly host: InventoryHost;
  readonly hosted: HostedMigration;
  /** What must be subtracted from the host's clock to get this machine's. */
  readonly clockOffsetMs: number;
}

export interface Survey {
  readonly parts: readonly Part[];
  /** Hosts that could not be asked: they may know of more. */
  readonly silent: readonly { readonly host: string; readonly reason: string }[];
}

const openTimeoutMs = 10_000;
const answerTimeoutMs = 10_000;

/** Asks all hosts of the inventory, then those that take part in what was found and are not in it. */
export async function survey(inventory: Inventory, signal?: AbortSignal): Promise<Survey> {
  const known = await Promise.all([...inventory.hosts.values()].map((host) => ask(host, signal)));
  const parts = known.flatMap((answer) => answer.parts);
  const strangers = new Map<string, InventoryHost>();
  for (const { hosted } of parts) {
    const { host: name, runDir } = hosted.ledger.peer;
    if (!inventory.hosts.has(name)) strangers.set(name, { ...resolveHost(inventory, name), runDir });
  }
  const others = await Promise.all([...strangers.values()].map((host) => ask(host, signal)));
  const answers = [...known, ...others];
  return {
    parts: answers.flatMap((answer) => answer.parts),
    silent: answers.flatMap(({ host, reason }) => (reason === null ? [] : [{ host: host.name, reason }])),
  };
}

interface Answer {
  readonly host: InventoryHost;
  readonly parts: readonly Part[];
  readonly reason: string | null;
}

async function ask(host: InventoryHost, signal?: AbortSignal): Promise<Answer> {
  try {
    const timeout = AbortSignal.timeout(openTimeoutMs);
    await using side = await openSide(host, signal === undefined ? timeout : AbortSignal.any([signal, timeout]));
    const { runDir } = host;
    const found = await call(side.rpc, 'host.migrations', { runDir }, { signal, timeoutMs: answerTimeoutMs });
    const { offsetMs: clockOffsetMs } = await side.clock;
    return { host, parts: found.map((hosted) => ({ host, hosted, clockOffsetMs })), reason: null };
  } catch (thrown) {
    signal?.throwIfAborted();
    return { host, parts: [], reason: (thrown as Error).message };
  }
}
