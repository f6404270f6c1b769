/**
 * Reads ssh_config files with their `Include` lines followed, into one text that the `ssh-config` package, which does
 * not know Include, can evaluate.
 */
import { readdir, readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, isAbsolute, join } from 'node:path';

const INCLUDE = /^\s*include(?:\s*=\s*|\s+)(.+?)\s*$/i;
const SECTION = /^\s*(?:host|match)(?:\s|=)/i;
/** As OpenSSH's READCONF_MAX_DEPTH. */
const MAX_DEPTH = 16;

/**
 * @param directory what relative names in `Include` are relative to: ~/.ssh or /etc/ssh.
 * @returns the text; undefined when there is no such file.
 * @throws Error when a file cannot be read, or when files include each other in a circle.
 */
export async function readSshConfig(file: string, directory: string, depth = 0): Promise<string | undefined> {
  if (depth > MAX_DEPTH) throw new Error(`${file}: too many levels of Include`);
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  const lines: string[] = [];
  let section = 'Match all';
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (SECTION.test(line)) section = line;
    const patterns = INCLUDE.exec(line)?.[1];
    if (patterns === undefined) {
      lines.push(line);
      continue;
    }
    for (const included of await expand(patterns, directory)) {
      const content = await readSshConfig(included, directory, depth + 1);
      if (content === undefined) continue;
      if (section !== 'Match all' && content.split('\n').some((inner) => SECTION.test(inner))) {
        // OpenSSH would demand both conditions; text alone cannot say that.
        throw new Error(
          `${file}:${index + 1}: Include inside a Host or Match section, of a file that has such sections itself`,
        );
      }
      // The section that the Include stands in goes on after it.
      lines.push(content, section);
    }
  }
  return lines.join('\n');
}

async function expand(patterns: string, directory: string): Promise<string[]> {
  const files: string[] = [];
  for (const [, quoted, plain] of patterns.matchAll(/"([^"]*)"|(\S+)/g)) {
    const pattern = (quoted ?? plain ?? '').replace(/^~(?=\/)/, homedir());
    const path = isAbsolute(pattern) ? pattern : join(directory, pattern);
    if (!/[*?]/.test(basename(path))) {
      files.push(path);
      continue;
    }
    const names = await readdir(dirname(path)).catch((): string[] => []);
    const matches = names.filter((name) => !name.startsWith('.') && matchesPattern(basename(path), name));
    files.push(...matches.sort().map((name) => join(dirname(path), name)));
  }
  return files;
}

/** OpenSSH's patterns: `*` is any number of characters, `?` exactly one. Case matters: lower it before where it must not. */
export function matchesPattern(pattern: string, text: string): boolean {
  const source = pattern
    .replace(/[\\^$.|+()[\]{}]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`, 's').test(text);
}
