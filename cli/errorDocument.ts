/** Prints docs/errors.md. */
import { errorDocument } from '../migrate/errorCodes.js';

process.stdout.write(errorDocument());
