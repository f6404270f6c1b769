import { version } from './version.js';

/** Runs on a host for a caller elsewhere; stdin and stdout belong to it. */
export async function runHostService(): Promise<void> {
  // Both relays and their native parts hang on this: whoever only calls a service does without.
  const { serve } = await import('../host-service/serve.js');
  await serve(version());
}
