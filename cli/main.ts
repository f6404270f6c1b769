/** The `vmmig` command. */
import './schemaSettings.js';

// A migration waits for this verb on both hosts: it is started without the command line around it.
const running = process.argv[2] === 'host-service' ? serveHost() : runVerb();
running.then(leave);

async function serveHost(): Promise<number> {
  const { runHostService } = await import('../migrate/hostService.js');
  await runHostService();
  return 0;
}

async function runVerb(): Promise<number> {
  const { run } = await import('./run.js');
  return await run(process.argv.slice(2), process);
}

/** What was written must arrive, and nothing left open (a host that does not answer) may keep the shell waiting. */
async function leave(code: number): Promise<never> {
  for (const stream of [process.stdout, process.stderr])
    await new Promise<void>((resolve) => stream.write('', () => resolve()));
  process.exit(code);
}
