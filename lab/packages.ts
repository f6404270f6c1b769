/**
 * Debian packages unpacked beside the system instead of installed into it: own sources list, package lists and archive
 * cache, so that the system's apt and dpkg see nothing of it. Mirror and signing key are those of the machine's own apt
 * sources; only the suite is substituted.
 */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { LabError } from './errors.js';

export interface Mirror {
  uri: string;
  codename: string;
  signedBy: string | undefined;
}

/** An apt of its own in `directory`, with the machine's release and, optionally, its backports. */
export class PackageSource {
  private constructor(
    readonly directory: string,
    readonly codename: string,
    private readonly options: string[],
    private readonly signal: AbortSignal | undefined,
  ) {}

  static async open(directory: string, settings: { backports: boolean; signal?: AbortSignal }): Promise<PackageSource> {
    const mirror = await findMirror();
    for (const each of ['lists/partial', 'archives/partial']) {
      await mkdir(join(directory, each), { recursive: true });
    }
    const suites = settings.backports ? `${mirror.codename} ${mirror.codename}-backports` : mirror.codename;
    const lines = ['Types: deb', `URIs: ${mirror.uri}`, `Suites: ${suites}`, 'Components: main'];
    if (mirror.signedBy !== undefined) lines.push(`Signed-By: ${mirror.signedBy}`);
    const list = join(directory, 'vmmig.sources');
    await writeFile(list, `${lines.join('\n')}\n`);
    const values = {
      'Dir::Etc::sourcelist': list,
      'Dir::Etc::sourceparts': '-',
      'Dir::State::lists': join(directory, 'lists'),
      'Dir::Cache': directory,
      // The directory is root's own; the unprivileged download user cannot write there.
      'APT::Sandbox::User': 'root',
      'APT::Get::List-Cleanup': 'false',
    };
    const options = Object.entries(values).flatMap(([key, value]) => ['-o', `${key}=${value}`]);
    const source = new PackageSource(directory, mirror.codename, options, settings.signal);
    await source.run('apt-get', ['update']);
    return source;
  }

  /** Names of the packages `name` directly depends on. */
  async dependencies(name: string): Promise<string[]> {
    const output = await this.run('apt-cache', ['depends', '--important', name]);
    return [...output.matchAll(/^\s+Depends: (\S+)$/gm)].map((match) => match[1]!);
  }

  /** Names of the packages that installing `names` from `suite` would add to or replace on this machine. */
  async wouldInstall(names: string[], suite: string): Promise<string[]> {
    const output = await this.run('apt-get', ['-s', '--no-install-recommends', '-t', suite, 'install', ...names]);
    return [...output.matchAll(/^Inst (\S+)/gm)].map((match) => match[1]!);
  }

  /** Downloads `names` (from `suite` when given) and unpacks them into `root`. */
  async unpack(names: string[], root: string, suite?: string): Promise<void> {
    const archives = join(this.directory, 'archives');
    await this.run('apt-get', [...(suite ? ['-t', suite] : []), 'download', ...names], archives);
    const files = (await readdir(archives)).filter((file) => file.endsWith('.deb'));
    for (const file of files) await this.run('dpkg-deb', ['-x', join(archives, file), root]);
  }

  private async run(command: string, args: string[], cwd = this.directory): Promise<string> {
    const all = command.startsWith('apt') ? [...this.options, ...args] : args;
    const result = await execa(command, all, {
      cwd,
      env: { LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive' },
      stdin: 'ignore',
      reject: false,
      ...(this.signal ? { cancelSignal: this.signal } : {}),
    });
    this.signal?.throwIfAborted();
    if (result.failed) {
      const reason = result.stderr?.trim() || result.message;
      throw new LabError('VMMIG_LAB_COMMAND', `${command} ${args.join(' ')} failed: ${reason}`);
    }
    return result.stdout;
  }
}

/** The machine's own Debian archive: the source whose suite is the running release and whose component is main. */
export async function findMirror(): Promise<Mirror> {
  const codename = /^VERSION_CODENAME=(\S+)$/m.exec(await readFile('/etc/os-release', 'utf8'))?.[1];
  if (codename === undefined) {
    throw new LabError('VMMIG_LAB_UNSUPPORTED', 'The lab needs Debian: /etc/os-release names no release');
  }
  const directory = '/etc/apt/sources.list.d';
  const names = await readdir(directory).catch(() => []);
  for (const path of ['/etc/apt/sources.list', ...names.sort().map((name) => join(directory, name))]) {
    const text = await readFile(path, 'utf8').catch(() => '');
    const sources = path.endsWith('.sources') ? parseDeb822(text) : parseOneLine(text);
    const found = sources.find((source) => source.suites.includes(codename) && source.components.includes('main'));
    if (found) return { uri: found.uri, codename, signedBy: found.signedBy };
  }
  throw new LabError('VMMIG_LAB_UNSUPPORTED', `No apt source in /etc/apt has the suite ${codename} and component main`);
}

interface AptSource {
  uri: string;
  suites: string[];
  components: string[];
  signedBy: string | undefined;
}

/** Stanzas as in sources.list(5), "DEB822-STYLE FORMAT". A key embedded in Signed-By is kept as its folded lines. */
export function parseDeb822(text: string): AptSource[] {
  return text
    .replace(/^#.*\n?/gm, '')
    .split(/\n\s*\n/)
    .flatMap((stanza) => {
      const fields = new Map<string, string>();
      for (const match of stanza.matchAll(/^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t].*)*)/gm)) {
        fields.set(match[1]!.toLowerCase(), match[2]!.trimEnd());
      }
      const words = (name: string) => (fields.get(name) ?? '').split(/\s+/).filter(Boolean);
      const uri = words('uris')[0];
      const enabled = fields.get('enabled')?.toLowerCase() !== 'no';
      if (uri === undefined || !enabled || !words('types').includes('deb')) return [];
      return [{ uri, suites: words('suites'), components: words('components'), signedBy: fields.get('signed-by') }];
    });
}

/** Lines as in sources.list(5), "ONE-LINE-STYLE FORMAT". */
export function parseOneLine(text: string): AptSource[] {
  return [...text.matchAll(/^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+(.+)$/gm)].map((match) => ({
    uri: match[2]!,
    suites: [match[3]!],
    components: match[4]!.replace(/#.*/, '').trim().split(/\s+/),
    signedBy: /signed-by=(\S+)/i.exec(match[1] ?? '')?.[1],
  }));
}
