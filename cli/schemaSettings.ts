/** Before any schema is made: a command checks a few messages of each kind, and to compile code for that takes longer. */
import { config } from 'zod';

config({ jitless: true });
