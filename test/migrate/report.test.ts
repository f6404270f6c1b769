import { describe, expect, test } from 'vitest';
import { toVmmigError, VmmigError } from '../../migrate/errors.js';
import { exitCodeOf, type MigrationResult, type PhaseName, phaseNames } from '../../migrate/report.js';
import { RelayError } from '../../relay/errors.js';

function failed(code: string, phase: PhaseName | null = 'preflight') {
  return { result: 'failed' as const, error: { code, message: '', phase, retryable: false } };
}

describe('the exit code', () => {
  test.each<[MigrationResult, number]>([
    ['moved', 0],
    ['failed', 1],
    ['cancelled', 3],
    ['refused', 5],
    ['interrupted', 6],
    ['unknown', 7],
  ])('of a migration that ended as %s is %i', (result, code) => {
    expect(exitCodeOf({ result, error: null })).toBe(code);
    const error = { code: 'VMMIG_LINK_LOST', message: '', phase: 'precopy', retryable: true } as const;
    expect(exitCodeOf({ result, error })).toBe(code);
  });

  test('is 4 when a host could not be used at all, before anything was changed', () => {
    for (const code of [
      'VMMIG_SSH_CONNECT',
      'VMMIG_SSH_AUTH',
      'VMMIG_SSH_HOST_KEY',
      'VMMIG_HOST_COMMAND',
      'VMMIG_HOST_TIMEOUT',
      'VMMIG_HOST_NO_VMMIG',
      'VMMIG_HOST_INCOMPATIBLE',
      'VMMIG_HOST_SERVICE_ENDED',
    ])
      expect(exitCodeOf(failed(code))).toBe(4);
  });

  test('is 1 for the same errors later on, and for all others', () => {
    for (const phase of [...phaseNames.filter((name) => name !== 'preflight'), null])
      expect(exitCodeOf(failed('VMMIG_SSH_CONNECT', phase))).toBe(1);
    for (const code of [
      'VMMIG_GUEST_NOT_FOUND',
      'VMMIG_LINK_CONNECT',
      'VMMIG_HOSTILE',
      'XVMMIG_SSH_CONNECT',
      'VMMIG_SSH_',
    ])
      expect(exitCodeOf(failed(code))).toBe(1);
  });

  test('of anything but a failure does not depend on the error', () => {
    const { error } = failed('VMMIG_SSH_CONNECT');
    expect(exitCodeOf({ result: 'unknown', error })).toBe(7);
    expect(exitCodeOf({ result: 'cancelled', error })).toBe(3);
    expect(exitCodeOf({ result: 'moved', error })).toBe(0);
  });
});

describe('an error that leaves a migration', () => {
  test('says where the guest is, and claims no more than is known', () => {
    const error = new VmmigError('VMMIG_TIMEOUT', 'too slow');
    expect(error).toMatchObject({ name: 'VmmigError', phase: null, vmLocation: 'source', retryable: false });
    expect(error).not.toHaveProperty('cause');
  });

  test('keeps the code and words of the module it came from, and that as its cause', () => {
    const cause = new RelayError('VMMIG_LINK_LOST', 'the link broke');
    const error = toVmmigError(cause, { phase: 'precopy', vmLocation: 'unknown', retryable: true });
    expect(error).toMatchObject({
      code: 'VMMIG_LINK_LOST',
      message: 'the link broke',
      phase: 'precopy',
      vmLocation: 'unknown',
      retryable: true,
      cause,
    });
  });

  test('is left as it is when it is one already', () => {
    const error = new VmmigError('VMMIG_TIMEOUT', 'too slow', { phase: 'scan' });
    expect(toVmmigError(error, { phase: 'verify' })).toBe(error);
  });

  test.each([
    ['an error without a code', new TypeError('oops'), 'oops'],
    ["a system error's code", Object.assign(new Error('no file'), { code: 'ENOENT' }), 'no file'],
    ['a code that is no text', Object.assign(new Error('odd'), { code: 7 }), 'odd'],
    ['a text', 'plain', 'plain'],
    ['nothing', undefined, 'undefined'],
    ['null', null, 'null'],
  ])('is internal when what was thrown is %s', (_, thrown, message) => {
    expect(toVmmigError(thrown)).toMatchObject({ code: 'VMMIG_INTERNAL', message });
  });
});
