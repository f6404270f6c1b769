/** Finds files of this project that are not TypeScript (C sources, scripts), from a checkout and from `dist/` alike. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The directory that holds package.json: the checkout or the installed package. */
export function projectDirectory(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, 'package.json'))) directory = dirname(directory);
  return directory;
}

/** The absolute path of a file named relative to the project. */
export function assetPath(relative: string): string {
  return join(projectDirectory(), relative);
}
