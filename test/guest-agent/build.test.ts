import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { execa } from 'execa';
import { expect, it } from 'vitest';
import { MAX_REQUEST_BYTES } from '../../guest-agent/qga/transport.js';
import { projectDirectory } from '../../lab/assets.js';
import { buildAgent, Workspace } from './agentGuest.js';

const PT_INTERP = 3;

it('is one static file below 1 MB that says its version', async () => {
  await using workspace = await Workspace.create();
  const path = await buildAgent(workspace.path);
  const binary = await readFile(path);
  expect(binary.length).toBeLessThan(1_000_000);
  // Packed, it goes into a guest by one command of qemu-guest-agent, with room for the rest of the command.
  expect((gzipSync(binary, { level: 9 }).length * 4) / 3).toBeLessThan(MAX_REQUEST_BYTES - 8 * 1024);
  const headers = Array.from({ length: binary.readUInt16LE(56) }, (_, i) => binary.readUInt32LE(64 + i * 56));
  expect(headers).not.toContain(PT_INTERP);
  const { version } = JSON.parse(await readFile(join(projectDirectory(), 'package.json'), 'utf8'));
  expect((await execa(path, ['--version'])).stderr).toContain(`vmmig-agent ${version}`);
});
