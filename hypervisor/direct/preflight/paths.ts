/** Whether the destination has the files and directories that the guest needs. */
import { constants } from 'node:fs';
import { access, stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Finding, FindingCode } from '../../finding.js';
import type { RequiredPath } from '../commandLine/index.js';
import { checkDisk } from './disks.js';
import type { DestinationPlan } from './plan.js';

/** For sockets, logs and the journal of one migration. */
const OWN_DIRECTORY_BYTES = 16 * 1024 * 1024;

export async function checkPaths({
  commandLine,
  disks,
  runDirectory,
  stateDirectory,
}: DestinationPlan): Promise<Finding[]> {
  // What the same file was asked for twice is told once.
  const required = new Map(commandLine.requiredPaths.map((path) => [`${path.kind} ${path.access} ${path.path}`, path]));
  const findings = await Promise.all([
    ...[...required.values()].map(checkRequiredPath),
    ...disks.map(checkDisk),
    ...(commandLine.cwdRequired ? [checkWorkingDirectory(commandLine.cwd)] : []),
    checkOwnDirectory(runDirectory),
    ...(stateDirectory === undefined ? [] : [checkOwnDirectory(stateDirectory)]),
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

interface Problem {
  /** Not access. */
  readonly isSpace: boolean;
  readonly message: string;
  readonly remedy: string;
}

/** Where vmmig puts files of its own on a host: `runDir`, `stateDir`. Made when it is needed, where its parent exists. */
async function checkOwnDirectory(path: string): Promise<Finding[]> {
  const found = await ownDirectoryProblem(path);
  if (found === null) return [];
  const code = found.isSpace ? 'VMMIG_DESTINATION_SPACE' : 'VMMIG_DESTINATION_PATH';
  return [refuse(code, found.message, found.remedy)];
}

/** Likewise of the source. */
export async function checkSourceDirectory(path: string): Promise<Finding[]> {
  const found = await ownDirectoryProblem(path);
  return found === null ? [] : [refuse('VMMIG_SOURCE_DIRECTORY', found.message, found.remedy)];
}

async function ownDirectoryProblem(path: string): Promise<Problem | null> {
  const exists = (await stat(path).catch(() => null)) !== null;
  const directory = exists ? path : dirname(path);
  const problem = await accessProblem(directory, constants.W_OK);
  const where = exists ? path : `${path} cannot be made: ${directory}`;
  const remedy = 'name another directory for it in the inventory';
  if (problem !== null)
    return { isSpace: false, message: `${where} ${problem}`, remedy: `give access to it, or ${remedy}` };
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize >= OWN_DIRECTORY_BYTES) return null;
  const message = `${directory} has ${bavail * bsize} bytes free, ${OWN_DIRECTORY_BYTES} are needed`;
  return { isSpace: true, message, remedy: `free some space, or ${remedy}` };
}

function refuse(code: FindingCode, message: string, remedy: string): Finding {
  return { severity: 'refuse', code, message, remedy };
}
