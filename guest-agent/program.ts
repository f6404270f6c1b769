/** Where the agent's binary is on this host: it is part of vmmig as it is installed. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AgentError } from './errors.js';

/** @throws AgentError `VMMIG_AGENT_START` when this vmmig was not built completely */
export function agentProgram(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  // From `dist/bin/`, `dist/guest-agent/` and the sources' `guest-agent/` alike.
  for (;;) {
    const path = join(directory, 'dist/guest-agent/vmmig-agent');
    if (existsSync(path)) return path;
    const parent = dirname(directory);
    if (parent === directory) throw new AgentError('VMMIG_AGENT_START', 'This vmmig has no agent to bring into guests');
    directory = parent;
  }
}
