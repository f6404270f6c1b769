/** The version of this vmmig, from the package it is part of. */
import { readFileSync } from 'node:fs';

export function version(): string {
  // `cli/` is one level below package.json as source, and two as `dist/cli/`.
  for (const candidate of ['../package.json', '../../package.json']) {
    try {
      const manifest: unknown = JSON.parse(readFileSync(new URL(candidate, import.meta.url), 'utf8'));
      if (typeof manifest === 'object' && manifest !== null && 'version' in manifest) return String(manifest.version);
    } catch {
      // The other place has it.
    }
  }
  return 'unknown';
}
