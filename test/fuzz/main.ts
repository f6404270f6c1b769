/**
 * `npm run fuzz [-- NAME[,NAME…] [INPUTS]]`: the long form. What is found is made small and put into `corpus/`, where the
 * short form, and the next run, begin with it. VMMIG_FUZZ_SEED repeats a run.
 */
import { randomInt } from 'node:crypto';
import { Worker } from 'node:worker_threads';
import { addToCorpus } from './corpus.js';
import type { Decoder } from './decoder.js';
import { decoders } from './decoders/index.js';
import type { WorkerData, WorkerFinding } from './worker.js';

const defaultInputs = 1_000_000;
/** An input that takes this long never ends. */
const hangMs = 30_000;
const pollMs = 500;
/** A thread that needs more has been led to it. */
const maxHeapMb = 2048;
const sharedBytes = 8 + 2 ** 20;

interface Totals {
  readonly outcomes: number;
  readonly blocks: number;
  readonly pool: number;
}

/** @returns how many findings there were */
async function run(decoder: Decoder, inputs: number, seed: number): Promise<number> {
  const trying = new SharedArrayBuffer(sharedBytes);
  const worker = new Worker(new URL('./worker.mjs', import.meta.url), {
    workerData: { name: decoder.name, seed, inputs, trying } satisfies WorkerData,
    resourceLimits: { maxOldGenerationSizeMb: maxHeapMb },
  });
  const beganMs = performance.now();
  const counter = new Uint32Array(trying, 0, 1);
  let findings = 0;
  let last = 0;
  let lastAtMs = beganMs;
  const tell = (kind: string, message: string, input: Buffer) => {
    findings++;
    console.log(`  ${kind}: ${message.split('\n')[0]}\n    ${addToCorpus(decoder.name, kind, input)}`);
  };
  const current = () => {
    const shared = Buffer.from(trying);
    return Buffer.from(shared.subarray(8, 8 + shared.readUInt32BE(4)));
  };
  const watch = setInterval(() => {
    const done = Atomics.load(counter, 0);
    if (done !== last) {
      last = done;
      lastAtMs = performance.now();
    } else if (done > 0 && performance.now() - lastAtMs > hangMs) {
      tell('hang', `no end within ${hangMs} ms`, current());
      void worker.terminate();
    }
  }, pollMs);
  let totals: Totals | null = null;
  await new Promise<void>((resolve) => {
    worker.on('message', (message: WorkerFinding | Totals) => {
      if ('finding' in message) tell(message.finding.kind, message.finding.message, Buffer.from(message.input));
      else totals = message;
    });
    worker.on('error', (error) => tell('crash', String(error), current()));
    worker.on('exit', () => resolve());
  });
  clearInterval(watch);
  const seconds = ((performance.now() - beganMs) / 1000).toFixed(0);
  const { outcomes, blocks, pool } = totals ?? { outcomes: 0, blocks: 0, pool: 0 };
  const reached = `${outcomes} outcomes, ${blocks} blocks of code, ${pool} inputs kept`;
  console.log(`${decoder.name}: ${inputs} inputs in ${seconds} s, ${findings} findings (${reached})`);
  return findings;
}

async function main([names, count]: readonly string[]): Promise<number> {
  const seed = Number(process.env.VMMIG_FUZZ_SEED ?? randomInt(2 ** 47));
  const inputs = Number(count ?? defaultInputs);
  const wanted = names === undefined || names === 'all' ? null : names.split(',');
  const chosen = decoders.filter(({ name }) => wanted?.includes(name) !== false);
  if (chosen.length === 0 || !Number.isSafeInteger(inputs) || !Number.isSafeInteger(seed)) {
    console.error(`usage: fuzz [all|NAME[,NAME…]] [INPUTS]\nnames: ${decoders.map(({ name }) => name).join(' ')}`);
    return 2;
  }
  console.log(`VMMIG_FUZZ_SEED=${seed}`);
  let findings = 0;
  for (const decoder of chosen) findings += await run(decoder, inputs, seed);
  return findings === 0 ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
