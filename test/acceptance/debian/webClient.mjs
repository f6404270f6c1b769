/**
 * A web client that is never content: `node webClient.mjs ADDRESS` fetches the files that ADDRESS/SHA256SUMS lists, again
 * and again over one connection, and compares their sums, until its input ends. Then it prints what came of it, as JSON.
 * A connection that the server has not announced to close, and a sum that differs, is a fault.
 */
import { createHash } from 'node:crypto';
import { Agent, get } from 'node:http';

const [host] = process.argv.slice(2);
const agent = new Agent({ keepAlive: true, maxSockets: 1 });
const faults = [];
let connections = 0;
let announced = 0;
let rounds = 0;
let files = 0;
let longestMs = 0;
let isOver = false;

function fetchFile(path) {
  return new Promise((resolve, reject) => {
    const request = get({ agent, host, path, timeout: 120_000 }, (response) => {
      if (response.headers.connection === 'close') announced++;
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        if (response.statusCode === 200) resolve(Buffer.concat(chunks));
        else reject(new Error(`status ${response.statusCode}`));
      });
    });
    request.on('socket', (socket) => {
      if (socket.connecting) connections++;
    });
    request.on('timeout', () => request.destroy(new Error('no answer for two minutes')));
    request.on('error', reject);
  });
}

process.stdin.resume().on('end', () => {
  isOver = true;
});
const lines = (await fetchFile('/SHA256SUMS')).toString().trimEnd().split('\n');
process.stderr.write('serving\n');
while (!isOver) {
  for (const line of lines) {
    const [sum, path] = line.split('  ');
    const startMs = performance.now();
    try {
      const is = createHash('sha256')
        .update(await fetchFile(`/${path}`))
        .digest('hex');
      if (is !== sum) faults.push(`${path}: ${is} instead of ${sum}`);
      files++;
    } catch (error) {
      faults.push(`${path}: ${error.message}`);
    }
    longestMs = Math.max(longestMs, performance.now() - startMs);
    if (isOver || faults.length > 100) break;
  }
  rounds++;
  if (faults.length > 100) break;
}
agent.destroy();
console.log(JSON.stringify({ files, rounds, faults, connections, announced, longestMs: Math.round(longestMs) }));
