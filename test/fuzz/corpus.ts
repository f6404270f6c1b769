/** Inputs that have shown something once: `corpus/<decoder>/<kind>-<digest>.bin`. The short form tries them each time. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const corpusDirectory = fileURLToPath(new URL('./corpus', import.meta.url));

export interface CorpusInput {
  readonly file: string;
  readonly bytes: Buffer;
}

export function readCorpus(decoder: string): CorpusInput[] {
  const directory = join(corpusDirectory, decoder);
  if (!existsSync(directory)) return [];
  return readdirSync(directory)
    .sort()
    .map((file) => ({ file, bytes: readFileSync(join(directory, file)) }));
}

/** @returns the file's path */
export function addToCorpus(decoder: string, kind: string, input: Buffer): string {
  const directory = join(corpusDirectory, decoder);
  mkdirSync(directory, { recursive: true });
  const digest = createHash('sha256').update(input).digest('hex').slice(0, 12);
  const path = join(directory, `${kind}-${digest}.bin`);
  writeFileSync(path, input);
  return path;
}
