/** Whether the destination has the files and directories that the guest needs. */
import { constants } from 'node:fs';
import { access, stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Finding, FindingCode } from '../../finding.js';
import type { RequiredPath } from '../commandLine/index.js';
import { checkDisk } from './disks.js';
import type { DestinationPlan } from './plan.js';

/** For sockets, logs and the journal of one migration. */
const RUN_DIRECTORY_BYTES = 16 * 1024 * 1024;

export async function checkPaths({ commandLine, disks, runDirectory }: DestinationPlan): Promise<Finding[]> {
  // What the same file was asked for twice is told once.
  const required = new Map(commandLine.requiredPaths.map((path) => [`${path.kind} ${path.access} ${path.path}`, path]));
  const findings = await Promise.all([
    ...[...required.values()].map(checkRequiredPath),
    ...disks.map(checkDisk),
    ...(commandLine.cwdRequired ? [checkWorkingDirectory(commandLine.cwd)] : []),
    checkRunDirectory(runDirectory),
  ]);
  return findings.flat();
}

async function checkRequiredPath({ path, kind, access: mode, option }: RequiredPath): Promise<Finding[]> {
  const what = kind === 'existing' ? path : dirname(path);
  const problem = await accessProblem(what, mode === 'read' ? constants.R_OK : constants.W_OK);
  if (problem === null) return [];
  const message = `${option}: ${what} ${problem}`;
  return [
    refuse('VMMIG_DESTINATION_PATH', message, 'put it in place, or replace the path for this host in the inventory'),
  ];
}

/** Why a path cannot be used, or null. */
async function accessProblem(path: string, mode: number): Promise<string | null> {
  try {
    await access(path, mode);
    return null;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === 'ENOENT' ? 'does not exist' : `cannot be ${mode === constants.W_OK ? 'written' : 'read'} (${code})`;
  }
}

async function checkWorkingDirectory(cwd: string): Promise<Finding[]> {
  const problem = await accessProblem(cwd, constants.X_OK);
  if (problem === null) return [];
  const message = `the command line has paths relative to ${cwd}, which ${problem}`;
  return [refuse('VMMIG_DESTINATION_PATH', message, 'start the guest with absolute paths')];
}

async function checkRunDirectory(runDirectory: string): Promise<Finding[]> {
  const exists = (await stat(runDirectory).catch(() => null)) !== null;
  const directory = exists ? runDirectory : dirname(runDirectory);
  const problem = await accessProblem(directory, constants.W_OK);
  if (problem !== null) {
    return [refuse('VMMIG_DESTINATION_PATH', `${directory} ${problem}`, 'make it, or name another run directory')];
  }
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize >= RUN_DIRECTORY_BYTES) return [];
  const message = `${directory} has ${bavail * bsize} bytes free, ${RUN_DIRECTORY_BYTES} are needed`;
  return [refuse('VMMIG_DESTINATION_SPACE', message, 'free some space, or name another run directory')];
}

function refuse(code: FindingCode, message: string, remedy: string): Finding {
  return { severity: 'refuse', code, message, remedy };
}
