/** Lab guests that nobody manages: QEMU as a process of its host. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { LabError } from './errors.js';
import { type GuestDevices, guestArguments, guestPaths } from './guest/arguments.js';
import { answersQmp } from './guest/launch.js';
import type { TinyGuestImage } from './guest/tinyGuest.js';
import { cancel, labExec, pathInMember, pidFromOutside } from './host/members.js';
import { machineFor, qemuVersionOn, takesRoundMemory } from './hostQemu.js';
import { qemuBinary } from './qemu.js';
import type { HostName } from './settings.js';
import { requireState } from './state.js';

/** Starts QEMU on `host`. Returns its process id, as this process sees it, when it answers. */
export async function startQemu(
  host: HostName,
  devices: GuestDevices,
  image: TinyGuestImage,
  signal?: AbortSignal,
): Promise<number> {
  const { qemu: installed } = await requireState();
  const qemu = await qemuBinary(qemuVersionOn(host, installed), signal ? { signal } : {});
  const suited = { machine: machineFor(installed), hasRoundMemory: takesRoundMemory(installed) };
  const args = guestArguments({ ...suited, ...devices }, image);
  const inside = guestPaths(devices.dir, devices.name);
  // A process forked inside the host belongs to the host's first process once its parent has ended.
  const launch = 'echo $$ >"$PID_FILE"; exec "$@" </dev/null >"$LOG" 2>&1';
  await labExec(host, ['setsid', '--fork', 'sh', '-c', launch, 'sh', qemu.command, ...qemu.args, ...args], {
    env: { PID_FILE: inside.pidPath, LOG: inside.logPath },
    ...cancel(signal),
  });
  await waitForQemu(devices, host, signal);
  return pidFromOutside(host, Number(await readFile(pathInMember(host, inside.pidPath), 'utf8')));
}

async function waitForQemu(
  { dir, name }: GuestDevices,
  host: HostName,
  signal: AbortSignal | undefined,
): Promise<void> {
  const paths = guestPaths(pathInMember(host, dir), name);
  for (const deadline = Date.now() + 10_000; !(await answersQmp(paths.qmpPath)); await sleep(20)) {
    signal?.throwIfAborted();
    // Written by the shell that became QEMU; QEMU removes it when it ends in good order.
    const pid = (await readFile(paths.pidPath, 'utf8').catch(() => '')).trim();
    const log = await readFile(paths.logPath, 'utf8').catch(() => '');
    const ended = pid === '' ? log !== '' : !existsSync(pathInMember(host, `/proc/${pid}`));
    if (ended || Date.now() > deadline) {
      throw new LabError('VMMIG_LAB_GUEST', `QEMU for ${name} did not start: ${log.trim()}`);
    }
  }
}
