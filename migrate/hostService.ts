import { serve } from '../host-service/serve.js';
import { version } from './version.js';

/** Runs on a host for a caller elsewhere; stdin and stdout belong to it. */
export function runHostService(): Promise<void> {
  return serve(version());
}
