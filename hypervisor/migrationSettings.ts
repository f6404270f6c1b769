/** QEMU's migration capabilities and parameters, changed for one migration and put back afterwards. */
import type { MigrationCapability, MigrationParameters } from '../qmp/index.js';
import type { QmpMonitor } from './qmpMonitor.js';

export interface MigrationSettings {
  readonly capabilities?: Readonly<Partial<Record<MigrationCapability, boolean>>>;
  readonly parameters?: Readonly<MigrationParameters>;
}

/** What was in force before; `restore` once the migration has ended, as QEMU refuses changes before. */
export interface PreviousSettings {
  readonly settings: MigrationSettings;
  restore(options?: { signal?: AbortSignal | undefined }): Promise<void>;
}

/**
 * Applies settings, capabilities first. When QEMU refuses a part, what was already changed is put back.
 * @throws QmpCommandError when this QEMU does not know or does not take a setting
 */
export async function applyMigrationSettings(
  qmp: QmpMonitor,
  settings: MigrationSettings,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<PreviousSettings> {
  const [capabilities, parameters] = await Promise.all([
    qmp.execute('query-migrate-capabilities', {}, options),
    qmp.execute('query-migrate-parameters', {}, options),
  ]);
  const before = new Map<string, unknown>(capabilities.map(({ capability, state }) => [capability, state]));
  const previous: MigrationSettings = {
    capabilities: pick(settings.capabilities ?? {}, (name) => before.get(name)),
    parameters: pick(settings.parameters ?? {}, (name) => parameters[name]),
  };
  try {
    await setAll(qmp, settings, options);
  } catch (error) {
    await setAll(qmp, previous, {}).catch(() => undefined);
    throw error;
  }
  return { settings: previous, restore: (limits = {}) => setAll(qmp, previous, limits) };
}

/** The values that the named members of `wanted` have elsewhere; without those that have none. */
function pick<T extends object>(wanted: T, valueIn: (name: keyof T) => unknown): T {
  const names = Object.keys(wanted) as (keyof T)[];
  const entries = names.map((name) => [name, valueIn(name)]).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as T;
}

async function setAll(
  qmp: QmpMonitor,
  settings: MigrationSettings,
  options: { signal?: AbortSignal | undefined },
): Promise<void> {
  const { capabilities = {}, parameters = {} } = settings;
  const list = Object.entries(capabilities).map(([name, state]) => ({
    capability: name as MigrationCapability,
    state,
  }));
  if (list.length > 0) await qmp.execute('migrate-set-capabilities', { capabilities: list }, options);
  if (Object.keys(parameters).length > 0) await qmp.execute('migrate-set-parameters', parameters, options);
}
