/** One decoder's run, in a thread of its own: the main thread watches that it goes on, and ends it when it does not. */
import { parentPort, workerData } from 'node:worker_threads';
import { readCorpus } from './corpus.js';
import { decoders } from './decoders/index.js';
import type { Finding } from './evaluate.js';
import { fuzz } from './fuzzer.js';
import { minimise } from './minimise.js';

export interface WorkerData {
  readonly name: string;
  readonly seed: number;
  readonly inputs: number;
  /** Where the main thread sees what is being tried: be32 number of inputs so far, be32 length, the input. */
  readonly trying: SharedArrayBuffer;
}

export interface WorkerFinding {
  readonly finding: Finding;
  readonly input: Uint8Array;
}

/** Of one kind and message, so many are made smaller; the rest is only counted. */
const maxAlike = 1;

const { name, seed, inputs, trying } = workerData as WorkerData;
const decoder = decoders.find((each) => each.name === name)!;
const shared = Buffer.from(trying);
const counter = new Uint32Array(trying, 0, 1);
const alike = new Map<string, number>();

const result = fuzz(decoder, {
  seed,
  inputs,
  corpus: readCorpus(name).map(({ bytes }) => bytes),
  isGuided: true,
  trying(input) {
    shared.writeUInt32BE(input.length, 4);
    input.copy(shared, 8);
    Atomics.add(counter, 0, 1);
  },
  found(input, finding) {
    const key = `${finding.kind} ${finding.message.replace(/\d+/g, '#').slice(0, 60)}`;
    const times = (alike.get(key) ?? 0) + 1;
    alike.set(key, times);
    if (times > maxAlike) return;
    const told: WorkerFinding = { finding, input: minimise(decoder, input, finding) };
    parentPort!.postMessage(told);
  },
});
parentPort!.postMessage({ outcomes: result.outcomes.size, blocks: result.blocks, pool: result.pool });
