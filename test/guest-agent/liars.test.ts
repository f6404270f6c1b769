/** What an agent that means harm can do: cost time that is bounded, and memory that is. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AgentClient } from '../../guest-agent/client.js';
import { encodeFrame, frameType } from '../../guest-agent/protocol.js';
import { disksPayload, donePayload, groupsPayload, type PlainGroup, u64 } from './payloads.js';
import { type Command, ScriptedAgent } from './scriptedAgent.js';

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'vmmig-liar-'));
});

afterEach(() => rm(directory, { recursive: true, force: true }));

const vda = { name: 'vda', serial: 'one', sizeBytes: 2 ** 34, pci: '' };
const code = (value: string) => expect.objectContaining({ code: value });

function agent(answer: (command: Command, agent: ScriptedAgent) => void): Promise<ScriptedAgent> {
  return ScriptedAgent.start(directory, (command, self) => {
    if (command.type === frameType.hello) self.greet(command);
    else answer(command, self);
  });
}

/** Says something for as long as somebody listens. */
function endlessly(what: (command: Command, round: number) => Uint8Array) {
  return (command: Command, self: ScriptedAgent) => {
    if (command.type !== frameType.scan) return;
    self.reply(command, frameType.disks, disksPayload([vda]));
    let round = 0;
    const timer = setInterval(() => {
      for (let more = 0; more < 20; more++) self.write(what(command, round++));
    }, 1);
    setTimeout(() => clearInterval(timer), 1500);
  };
}

async function grownBy(action: () => Promise<void>): Promise<number> {
  const held = () => process.memoryUsage().heapUsed + process.memoryUsage().arrayBuffers;
  const before = held();
  await action();
  global.gc?.();
  return held() - before;
}

const frame = (command: Command, type: number, payload: Buffer) =>
  encodeFrame(type, command.session, command.request, payload);
const manyRuns = (round: number): PlainGroup => ({
  id: round,
  runs: Array.from({ length: 1000 }, (_, at) => ({
    pfn: (round * 7919 + at * 3) % 2 ** 24,
    pages: 1,
    disk: 0,
    sector: at * 8,
  })),
});

describe('an agent that never comes to its end', () => {
  it.each<[string, (command: Command, round: number) => Uint8Array]>([
    ['with new groups', (command, round) => frame(command, frameType.groups, groupsPayload([manyRuns(round)]))],
    [
      'with groups of nothing',
      (command, round) => frame(command, frameType.groups, groupsPayload([{ id: round, runs: [] }])),
    ],
    ['with groups that are no more', (command, round) => frame(command, frameType.removed, Buffer.from(u64(round)))],
    [
      'with one frame, a byte at a time',
      (command, round) =>
        frame(command, frameType.groups, Buffer.alloc(100_000)).subarray(round % 90_000, (round % 90_000) + 1),
    ],
  ])('%s is given up in time, and takes no more than its bounds', async (_, what) => {
    await using scripted = await agent(endlessly(what));
    const beganMs = performance.now();
    const grown = await grownBy(async () => {
      await using client = await AgentClient.connect({ path: scripted.path }, { maxRuns: 100_000 });
      const scan = client.scan({ mode: 'full', timeoutMs: 700 });
      await expect(scan).rejects.toEqual(
        expect.objectContaining({ code: expect.stringMatching(/^VMMIG_AGENT_(TIMEOUT|PROTOCOL)$/) }),
      );
    });
    expect(performance.now() - beganMs).toBeLessThan(10_000);
    expect(grown).toBeLessThan(64 * 2 ** 20);
  });

  it('with noise instead of a greeting is given up', async () => {
    await using scripted = await ScriptedAgent.start(directory, (_command, self) => {
      for (let at = 0; at < 20; at++) self.write(Buffer.alloc(2 ** 20, 'VMGA'));
    });
    await expect(AgentClient.connect({ path: scripted.path }, { timeoutMs: 3000 })).rejects.toEqual(
      expect.objectContaining({ code: expect.stringMatching(/^VMMIG_AGENT_(UNAVAILABLE|PROTOCOL)$/) }),
    );
  });

  it('with silence is given up', async () => {
    await using scripted = await agent(() => {});
    await using client = await AgentClient.connect({ path: scripted.path });
    await expect(client.scan({ mode: 'full', timeoutMs: 200 })).rejects.toEqual(code('VMMIG_AGENT_TIMEOUT'));
  });
});

describe('a map', () => {
  it('of runs that overlap, repeat and contradict each other names each page once, within memory and disk', async () => {
    const group = (id: number, pfn: number, sector: number): PlainGroup => {
      return {
        id,
        runs: Array.from({ length: 50 }, (_, at) => ({ pfn: pfn + at, pages: 20, disk: 0, sector: sector + 8 * at })),
      };
    };
    await using scripted = await agent((command, self) => {
      self.reply(command, frameType.disks, disksPayload([vda]));
      for (const each of [group(1, 100, 0), group(2, 110, 80), group(3, 100, 4000), group(1, 100, 0)])
        self.reply(command, frameType.groups, groupsPayload([each]));
      self.reply(command, frameType.done, donePayload(1, 5, 10_000));
    });
    await using client = await AgentClient.connect({ path: scripted.path });
    const { runs, pages } = await client.scan({ mode: 'full' });
    let end = 0;
    for (let at = 0; at < runs.count; at++) {
      expect(runs.pfn[at]).toBeGreaterThanOrEqual(end);
      end = runs.pfn[at]! + runs.pageCount[at]!;
      expect(runs.diskOffsetBytes[at]! + runs.pageCount[at]! * 4096).toBeLessThanOrEqual(vda.sizeBytes);
    }
    expect(pages).toBe(79);
  });
});
