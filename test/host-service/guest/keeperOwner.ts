/** A service that ends, or dies, at a word on stdin: `run`, `done`, or its end. Arguments: socket, decision, word, URI. */
import { createConnection } from 'node:net';
import { createInterface } from 'node:readline';
import { DaemonKeeper } from '../../../host-service/guest/daemonKeeper.js';

const [path, decision, word, uri] = process.argv.slice(2) as [string, string, string, string];
const daemon = createConnection({ path }, () => {
  const keeper = new DaemonKeeper(daemon, { decision, word }, { uri, domain: 'test' });
  process.stdout.write('ready\n');
  createInterface({ input: process.stdin })
    .on('line', (line) => {
      if (line === 'run') keeper.run();
      else keeper[Symbol.dispose]();
    })
    .on('close', () => process.kill(process.pid, 'SIGKILL'));
});
