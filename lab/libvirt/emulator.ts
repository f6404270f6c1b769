/**
 * The program that domains of the lab name as their emulator.
 *
 * QEMU before 9.0 loses writes of a TCG guest whose RAM is a multiple of 256 KiB (see guest/arguments.ts), and libvirt
 * rounds memory up to whole MiB. So version 7.2 is started by a script that adds two pages to what libvirt asks for, and
 * becomes QEMU by exec. libvirt does not notice: it never compares the size with QEMU's.
 */
import { chmod, writeFile } from 'node:fs/promises';
import { type QemuVersion, qemuBinary } from '../qemu.js';
import { labPaths } from '../settings.js';

/** Sizes are in MiB after -m, in KiB in its `size=`, in bytes in the JSON of a memory backend. */
const script = (qemu: string) => `#!/bin/bash
before=
arguments=()
for argument; do
  if [[ $before == -m && $argument =~ ^([0-9]+)$ ]]; then
    argument="size=$((argument * 1024 + 8))k"
  elif [[ $before == -m && $argument =~ ^size=([0-9]+)k(.*)$ ]]; then
    argument="size=$((BASH_REMATCH[1] + 8))k\${BASH_REMATCH[2]}"
  elif [[ $before == -object && $argument =~ ^(.*\\"memory-backend-.*\\"size\\":)([0-9]+)(.*)$ ]]; then
    argument="\${BASH_REMATCH[1]}$((BASH_REMATCH[2] + 8192))\${BASH_REMATCH[3]}"
  fi
  arguments+=("$argument")
  before=$argument
done
exec ${qemu} "\${arguments[@]}"
`;

/** Once for a lab: libvirt asks a program that has changed for its capabilities again, which takes seconds. */
export async function writeEmulator(version: QemuVersion): Promise<void> {
  if (version !== '7.2') return;
  const { command } = await qemuBinary(version);
  await writeFile(labPaths.emulator(), script(command));
  await chmod(labPaths.emulator(), 0o755);
}

/** What `<emulator>` has to name; the same on both hosts. */
export async function domainEmulator(version: QemuVersion): Promise<string> {
  return version === '7.2' ? labPaths.emulator() : (await qemuBinary(version)).command;
}
