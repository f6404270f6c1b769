/** The debian guest's files, as a directory of this machine: debootstrap, then the recipe's packages and files. */
import { chmod, copyFile, mkdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { LabError } from '../../errors.js';
import { findMirror } from '../../packages.js';
import { filesAfter, filesBefore, finish, packages } from './recipe.js';

/** Runs in namespaces of its own, so that nothing stays mounted and no process is left, however it ends. */
const script = `
mount --make-rprivate /
debootstrap --variant=minbase $KEYRING "$CODENAME" "$ROOT" "$URI"
cp -a "$BEFORE/." "$ROOT/"
mount -t proc proc "$ROOT/proc"
mount --bind /dev "$ROOT/dev"
mount -t tmpfs tmpfs "$ROOT/dev/shm"
mount -t tmpfs tmpfs "$ROOT/run"
chroot "$ROOT" apt-get update
chroot "$ROOT" apt-get install -y --no-install-recommends $PACKAGES
cp -a "$AFTER/." "$ROOT/"
chroot "$ROOT" sh -euxc "$FINISH"
`;

/** Fills `directory`/root. `programs` are further files for /usr/local/bin: name to path here. */
export async function buildTree(
  directory: string,
  programs: ReadonlyMap<string, string>,
  links: Record<string, string[]>,
  signal?: AbortSignal,
): Promise<string> {
  const root = join(directory, 'root');
  const [before, after] = [join(directory, 'before'), join(directory, 'after')];
  await writeTree(before, filesBefore);
  await writeTree(after, filesAfter);
  const bin = join(after, 'usr/local/bin');
  for (const [name, path] of programs) {
    await copyFile(path, join(bin, name));
    await chmod(join(bin, name), 0o755);
    for (const link of links[name] ?? []) await symlink(name, join(bin, link));
  }
  const mirror = await findMirror();
  const result = await execa('unshare', ['--mount', '--pid', '--fork', '--kill-child', 'sh', '-euxc', script], {
    env: {
      // debootstrap and what it runs need what is in sbin, too.
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      LC_ALL: 'C',
      DEBIAN_FRONTEND: 'noninteractive',
      ROOT: root,
      BEFORE: before,
      AFTER: after,
      CODENAME: mirror.codename,
      URI: mirror.uri,
      KEYRING: mirror.signedBy?.startsWith('/') ? `--keyring=${mirror.signedBy}` : '',
      PACKAGES: packages.join(' '),
      FINISH: finish,
    },
    stdin: 'ignore',
    all: true,
    reject: false,
    ...(signal ? { cancelSignal: signal } : {}),
  });
  signal?.throwIfAborted();
  if (result.failed) {
    const end = result.all?.split('\n').slice(-20).join('\n') || result.message;
    throw new LabError('VMMIG_LAB_COMMAND', `The debian guest could not be built: ${end}`);
  }
  return root;
}

async function writeTree(root: string, files: Record<string, string>): Promise<void> {
  for (const [path, text] of Object.entries(files)) {
    const to = join(root, path);
    await mkdir(dirname(to), { recursive: true });
    await writeFile(to, text);
    if (text.startsWith('#!')) await chmod(to, 0o755);
  }
}
