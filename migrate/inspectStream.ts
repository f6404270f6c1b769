import { createReadStream } from 'node:fs';
import type { StreamSummary } from '../stream/index.js';

/** What a captured migration stream holds. @throws StreamError; the file system's error when it cannot be read */
export async function inspectStream(path: string): Promise<{ summary: StreamSummary; text: string }> {
  const { formatSummary, summarise } = await import('../stream/index.js');
  const summary = await summarise(createReadStream(path));
  return { summary, text: formatSummary(summary) };
}
