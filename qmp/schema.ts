/**
 * What a QEMU supports, by its own account (`query-qmp-schema`). Feature checks go here, never by version number:
 * distributions backport.
 *
 * Source: QEMU, docs/devel/qapi-code-gen.rst, "Client JSON Protocol introspection".
 */
import { QmpProtocolError } from './errors.js';
import type { SchemaInfo } from './types/schema.js';

export class QmpSchema {
  readonly #entries: ReadonlyMap<string, SchemaInfo>;

  /** @throws {QmpProtocolError} when `entries` is not what `query-qmp-schema` returns */
  constructor(entries: readonly SchemaInfo[]) {
    if (!Array.isArray(entries)) throw new QmpProtocolError('query-qmp-schema returned no list');
    if (!entries.every(isEntry)) throw new QmpProtocolError('query-qmp-schema returned something else than a schema');
    this.#entries = new Map(entries.map((entry) => [entry.name, entry]));
  }

  /**
   * Whether a command or event exists and, with `path`, whether its arguments (an event's data) have that member.
   *
   * @param path member names joined by dots, looked up through arrays, alternatives and variants; the last may be a value
   *   of an enumeration: `supports('migrate', 'channels.addr.transport')`,
   *   `supports('migrate-set-capabilities', 'capabilities.capability.mapped-ram')`
   */
  supports(name: string, path?: string): boolean {
    const entry = this.#entries.get(name);
    if (entry?.['meta-type'] !== 'command' && entry?.['meta-type'] !== 'event') return false;
    if (path === undefined) return true;
    let types = new Set([entry['arg-type']]);
    for (const member of path.split('.')) types = this.#step(types, member);
    return types.size > 0;
  }

  /** Whether the command may be executed out of band. */
  allowsOob(command: string): boolean {
    const entry = this.#entries.get(command);
    return entry?.['meta-type'] === 'command' && entry['allow-oob'] === true;
  }

  /** The types that `member` may have in any of `types`. An enumeration's value has no type: its own stands for it. */
  #step(types: ReadonlySet<string>, member: string): Set<string> {
    const found = new Set<string>();
    for (const type of this.#shapes(types)) {
      if (type['meta-type'] === 'object') {
        for (const { name, type: memberType } of type.members) if (name === member) found.add(memberType);
      } else if (type['meta-type'] === 'enum') {
        const values = type.members?.map(({ name }) => name) ?? type.values ?? [];
        if (values.includes(member)) found.add(type.name);
      }
    }
    return found;
  }

  /** Every object and enumeration reachable without naming a member: array elements, alternatives, variants. */
  #shapes(types: ReadonlySet<string>): SchemaInfo[] {
    // A Set that grows while it is walked: each type once, whatever cycles the schema has.
    const reachable = new Set(types);
    const shapes: SchemaInfo[] = [];
    for (const name of reachable) {
      const type = this.#entries.get(name);
      if (type === undefined) continue;
      if (type['meta-type'] === 'array') reachable.add(type['element-type']);
      else if (type['meta-type'] === 'alternate') for (const member of type.members) reachable.add(member.type);
      else shapes.push(type);
      if (type['meta-type'] === 'object') for (const variant of type.variants ?? []) reachable.add(variant.type);
    }
    return shapes;
  }
}

/** As far as it is read here: whatever is walked through is a list, of objects where members are looked up. */
function isEntry(entry: unknown): boolean {
  if (!isObject(entry)) return false;
  const { members, variants, values } = entry;
  const kind = entry['meta-type'];
  if (kind === 'object') return isListOfObjects(members) && (variants === undefined || isListOfObjects(variants));
  if (kind === 'alternate') return isListOfObjects(members);
  if (kind !== 'enum') return true;
  return (members === undefined || isListOfObjects(members)) && (values === undefined || Array.isArray(values));
}

function isListOfObjects(value: unknown): boolean {
  return Array.isArray(value) && value.every(isObject);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
