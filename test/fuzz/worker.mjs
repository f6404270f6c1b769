/** A thread does not take the loader of TypeScript over from the main thread. */
import { register } from 'tsx/esm/api';

register();
await import('./worker.ts');
