import { readFileSync } from 'node:fs';

/** This vmmig's version, as its package says. The file is one folder above the sources, two above what they build to. */
export function version(): string {
  for (const relative of ['../package.json', '../../package.json']) {
    try {
      return (JSON.parse(readFileSync(new URL(relative, import.meta.url), 'utf8')) as { version: string }).version;
    } catch {
      // the other place
    }
  }
  return 'unknown';
}
