#!/usr/bin/env node
/** The `vmmig` command. */
import { run } from './run.js';

const code = await run(process.argv.slice(2), process);
// What was written must arrive, and nothing left open (a host that does not answer) may keep the shell waiting.
for (const stream of [process.stdout, process.stderr])
  await new Promise<void>((resolve) => stream.write('', () => resolve()));
process.exit(code);
