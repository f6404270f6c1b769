/**
 * Brings the agent into a guest and starts it, by one guest-exec: a shell takes the program from its standard input,
 * compares its digest, runs it, and removes what is left when it has ended. Whatever becomes of the host meanwhile, the
 * guest is left as it was.
 */
import { createHash, randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { AgentError } from '../errors.js';
import { QgaCommands } from './commands.js';
import type { QgaFiles } from './stream.js';
import type { QgaTransport } from './transport.js';

/** Someone who looks for vmmig's agent and finds nobody, waits so long. */
const ANSWER_TIMEOUT_MS = 1_500;
const START_TIMEOUT_MS = 8_000;
const CLOSE_TIMEOUT_MS = 1_000;
/** The guest logs each of these questions. */
const MIN_POLL_MS = 20;
const MAX_POLL_MS = 200;

const NEEDED = [
  'guest-exec',
  'guest-exec-status',
  'guest-file-open',
  'guest-file-close',
  'guest-file-read',
  'guest-file-seek',
  'guest-file-write',
  'guest-file-flush',
];

/** In memory, where programs may be run: many a /run is mounted `noexec`, Debian's too. /tmp may be on a disk. */
const PARENTS = ['/dev/shm', '/run', '/tmp'];

/** `sh -c SCRIPT vmmig-agent NAME SHA256`. Debian's sh and busybox's. The guest's log shows it. */
const SCRIPT = `umask 077
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin
end() { rm -rf "$dir"; echo "$1" >&2; exit 1; }
for parent in ${PARENTS.join(' ')}; do
  dir=$parent/$1
  mkdir "$dir" 2>/dev/null || continue
  echo '#!/bin/sh' >"$dir/try" && chmod 700 "$dir/try" && "$dir/try" 2>/dev/null && break
  rm -rf "$dir"
done
[ -e "$dir/try" ] || end "no directory to run programs from"
rm "$dir/try"
gzip -dc >"$dir/vmmig-agent" || end "the program did not arrive"
set -- "$2" $(sha256sum <"$dir/vmmig-agent")
[ "$1" = "$2" ] || end "the program arrived damaged"
chmod 700 "$dir/vmmig-agent"
"$dir/vmmig-agent" --files "$dir" || end "the program ended with status $?"
rm -rf "$dir"`;

/**
 * Asks qemu-guest-agent whether it is there, and may do what is needed.
 * @returns its version
 * @throws AgentError `VMMIG_AGENT_TIMEOUT` and others of {@link QgaTransport}; `VMMIG_AGENT_BLOCKED`
 */
export async function checkQga(transport: QgaTransport, signal?: AbortSignal): Promise<string> {
  const { version, enabled } = await new QgaCommands(transport, { signal, timeoutMs: ANSWER_TIMEOUT_MS }).info();
  const missing = NEEDED.filter((command) => !enabled.has(command));
  if (missing.length > 0) {
    const message = `qemu-guest-agent ${version} answers, but does not allow ${missing.join(', ')}`;
    throw new AgentError('VMMIG_AGENT_BLOCKED', message);
  }
  return version;
}

/**
 * Starts the agent in the guest.
 * @param program - path of the agent's static binary, on this host
 * @throws AgentError `VMMIG_AGENT_START`, and others of {@link QgaTransport}
 */
export async function startAgent(transport: QgaTransport, program: string, signal?: AbortSignal): Promise<QgaFiles> {
  const binary = await readFile(program);
  const digest = createHash('sha256').update(binary).digest('hex');
  const name = `vmmig-${randomBytes(12).toString('hex')}`;
  const commands = new QgaCommands(transport, { signal });
  const pid = await commands.start(
    '/bin/sh',
    ['-c', SCRIPT, 'vmmig-agent', name, digest],
    gzipSync(binary, { level: 9 }),
  );
  const deadline = performance.now() + START_TIMEOUT_MS;
  for (let pollMs = MIN_POLL_MS; performance.now() < deadline; pollMs = Math.min(pollMs * 2, MAX_POLL_MS)) {
    await delay(pollMs, undefined, { signal }).catch(() => signal?.throwIfAborted());
    for (const parent of PARENTS) {
      const input = await openIfThere(commands, `${parent}/${name}/in`);
      if (input !== null)
        return { pid, input, output: await openOther(transport, `${parent}/${name}/out`, input, signal) };
    }
    const end = await commands.end(pid);
    if (end !== null) throw new AgentError('VMMIG_AGENT_START', `The agent does not run in the guest: ${end.message}`);
  }
  throw new AgentError('VMMIG_AGENT_START', `The agent does not begin within ${START_TIMEOUT_MS} ms`);
}

async function openOther(transport: QgaTransport, path: string, opened: number, signal?: AbortSignal): Promise<number> {
  try {
    return await new QgaCommands(transport, { signal }).open(path, 'r');
  } catch (error) {
    // An agent that nobody greets leaves by itself.
    await new QgaCommands(transport, { timeoutMs: CLOSE_TIMEOUT_MS }).close(opened).catch(() => {});
    throw error;
  }
}

/** For reading and writing: whoever opens a FIFO for one of them waits for the other end, and qemu-ga waits for nobody. */
async function openIfThere(commands: QgaCommands, path: string): Promise<number | null> {
  try {
    return await commands.open(path, 'r+');
  } catch (thrown) {
    if (thrown instanceof AgentError && thrown.code === 'VMMIG_AGENT_COMMAND') return null;
    throw thrown;
  }
}
