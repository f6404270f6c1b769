import { describe, expect, it } from 'vitest';
import type { SchemaInfo } from '../../qmp/index.js';
import { QmpSchema } from '../../qmp/schema.js';

const entries: SchemaInfo[] = [
  { name: 'migrate', 'meta-type': 'command', 'arg-type': '1', 'ret-type': '0' },
  { name: 'migrate-pause', 'meta-type': 'command', 'arg-type': '0', 'ret-type': '0', 'allow-oob': true },
  { name: 'MIGRATION', 'meta-type': 'event', 'arg-type': '2' },
  { name: '0', 'meta-type': 'object', members: [] },
  {
    name: '1',
    'meta-type': 'object',
    members: [
      { name: 'uri', type: 'str', default: null },
      { name: 'channels', type: '[3]', default: null },
    ],
  },
  { name: '2', 'meta-type': 'object', members: [{ name: 'status', type: '4' }] },
  {
    name: '3',
    'meta-type': 'object',
    members: [{ name: 'transport', type: '5' }],
    tag: 'transport',
    variants: [{ case: 'socket', type: '6' }],
  },
  { name: '4', 'meta-type': 'enum', members: [{ name: 'active' }, { name: 'completed' }] },
  { name: '5', 'meta-type': 'enum', values: ['socket', 'exec'] },
  { name: '6', 'meta-type': 'object', members: [{ name: 'path', type: '7' }] },
  { name: '7', 'meta-type': 'alternate', members: [{ type: 'str' }, { type: '4' }, { type: '7' }] },
  { name: '[3]', 'meta-type': 'array', 'element-type': '3' },
  { name: '[loop]', 'meta-type': 'array', 'element-type': '[loop]' },
  { name: 'loop', 'meta-type': 'command', 'arg-type': '[loop]', 'ret-type': '0' },
  { name: 'str', 'meta-type': 'builtin', 'json-type': 'string' },
];

describe('QmpSchema', () => {
  const schema = new QmpSchema(entries);

  it.each<[boolean, string, string?]>([
    [true, 'migrate'],
    [false, 'migrate-quickly'],
    [false, 'str'],
    [true, 'migrate', 'uri'],
    [true, 'migrate', 'channels'],
    [false, 'migrate', 'detach'],
    [false, 'migrate', 'uri.length'],
    [true, 'migrate', 'channels.transport'],
    [true, 'migrate', 'channels.transport.exec'],
    [false, 'migrate', 'channels.transport.rdma'],
    [true, 'migrate', 'channels.path'],
    [true, 'migrate', 'channels.path.active'],
    [false, 'migrate', ''],
    [true, 'MIGRATION', 'status.completed'],
    [false, 'MIGRATION', 'status.lost'],
    [false, 'loop', 'x'],
  ])('says %s for %s %s', (supported, name, path) => {
    expect(schema.supports(name, path)).toBe(supported);
  });

  it('knows which commands may be executed out of band', () => {
    expect(schema.allowsOob('migrate-pause')).toBe(true);
    expect(schema.allowsOob('migrate')).toBe(false);
    expect(schema.allowsOob('MIGRATION')).toBe(false);
  });

  it('refuses what is no schema', () => {
    expect(() => new QmpSchema({} as SchemaInfo[])).toThrow(/no list/);
  });
});
