import { describe, expect, test } from 'vitest';
import { exitCodeOfError } from '../../cli/exitCode.js';
import { VmmigError } from '../../migrate/errors.js';

describe('The exit code of a command that has no report', () => {
  test.each([
    ['VMMIG_USAGE_GUEST', 2],
    ['VMMIG_INVENTORY_SYNTAX', 2],
    ['VMMIG_ALREADY_MIGRATING', 2],
    ['VMMIG_SSH_AUTH', 4],
    ['VMMIG_HOST_SILENT', 4],
    ['VMMIG_GUEST_NOT_FOUND', 5],
    ['VMMIG_GUEST_NOT_RUNNING', 5],
    ['VMMIG_AGENT_UNAVAILABLE', 1],
  ])('for %s is %i', (code, exitCode) => {
    expect(exitCodeOfError(new VmmigError(code, ''))).toBe(exitCode);
  });
});
