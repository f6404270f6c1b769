import { expect, test } from 'vitest';
import { parseDestination } from '../../../hosts/ssh/destination.js';

test.each([
  ['hostA', { host: 'hostA' }],
  ['root@10.0.0.1:22', { user: 'root', host: '10.0.0.1', port: 22 }],
  ['host.example:2222', { host: 'host.example', port: 2222 }],
  ['ssh://root@hostA:22/', { user: 'root', host: 'hostA', port: 22 }],
  ['[2001:db8::1]:2222', { host: '2001:db8::1', port: 2222 }],
  ['root@[fe80::1%eth0]', { user: 'root', host: 'fe80::1%eth0' }],
  ['2001:db8::1', { host: '2001:db8::1' }],
  ['first.last@corp@hostA', { user: 'first.last@corp', host: 'hostA' }],
])('%s is a destination', (text, destination) => {
  expect(parseDestination(text)).toEqual(destination);
});

test.each([
  '',
  'a b',
  'hostA:',
  'hostA:0',
  'hostA:65536',
  'hostA:ssh',
  '-oProxyCommand=id',
  '-x@hostA',
  'root@',
  '@hostA',
  '[hostA',
  'a/b',
])('%j is no destination', (text) => {
  expect(parseDestination(text)).toBeUndefined();
});
