import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AgentClient } from '../../guest-agent/client.js';
import { frameType } from '../../guest-agent/protocol.js';
import { disksPayload, donePayload, groupsPayload, helloPayload, type PlainGroup, u64 } from './payloads.js';
import { type Command, ScriptedAgent } from './scriptedAgent.js';

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'vmmig-agent-'));
});

afterEach(() => rm(directory, { recursive: true, force: true }));

const vda = { name: 'vda', serial: 'one', sizeBytes: 2 ** 30, pci: '0000:00:01.0' };
const code = (value: string) => expect.objectContaining({ code: value });

/** An agent that greets, and leaves the rest to `answer`. */
function agent(answer: (command: Command, agent: ScriptedAgent) => void = () => {}): Promise<ScriptedAgent> {
  return ScriptedAgent.start(directory, (command, self) => {
    if (command.type === frameType.hello) self.greet(command);
    else answer(command, self);
  });
}

function reportGroups(to: Command, self: ScriptedAgent, groups: PlainGroup[]): void {
  self.reply(to, frameType.disks, disksPayload([vda]));
  self.reply(to, frameType.groups, groupsPayload(groups));
  self.reply(to, frameType.done, donePayload(to.payload[0]!, 5, 1, [[1, 12]]));
}

const group = (id: number, pfn: number): PlainGroup => ({ id, runs: [{ pfn, pages: 2, disk: 0, sector: pfn * 8 }] });

describe('connecting to an agent', () => {
  it('fails quickly when nothing answers, whether there is a socket or not', async () => {
    await using _silent = await ScriptedAgent.start(directory, () => {});
    const began = performance.now();
    await expect(AgentClient.connect({ path: _silent.path })).rejects.toEqual(code('VMMIG_AGENT_UNAVAILABLE'));
    expect(performance.now() - began).toBeLessThan(2_500);
    const missing = AgentClient.connect({ path: join(directory, 'nothing') });
    await expect(missing).rejects.toEqual(code('VMMIG_AGENT_UNAVAILABLE'));
  });

  it('says hello again to an agent that missed it', async () => {
    await using scripted = await ScriptedAgent.start(directory, (command, self) => {
      if (self.commands.length === 2) self.greet(command);
    });
    await using client = await AgentClient.connect({ path: scripted.path });
    expect(client.hello.agentVersion).toBe('0.1.0');
    expect(scripted.commands.map((command) => command.type)).toEqual(Array(2).fill(frameType.hello));
  });

  it('closes the port once to an agent that cannot answer, and opens it again', async () => {
    await using scripted = await ScriptedAgent.start(directory, (command, self) => {
      if (!command.session.equals(self.commands[0]!.session)) self.greet(command);
    });
    await using client = await AgentClient.connect({ path: scripted.path });
    expect(client.hello.protocolVersion).toBe(1);
  });

  it('takes a stream that is open already, and closes it', async () => {
    await using scripted = await agent();
    const stream = connect(scripted.path);
    const client = await AgentClient.connect({ stream });
    client.close();
    expect(stream.destroyed).toBe(true);
    await expect(client.ping()).rejects.toEqual(code('VMMIG_AGENT_DISCONNECTED'));
    await expect(client.scan({ mode: 'full' })).rejects.toEqual(code('VMMIG_AGENT_DISCONNECTED'));
  });

  it('refuses another protocol version and other page sizes, and can be aborted', async () => {
    const answers: ((command: Command, self: ScriptedAgent) => void)[] = [
      (command, self) => self.reply(command, frameType.error, Uint8Array.of(2, 0)),
      (command, self) => self.reply(command, frameType.helloAck, helloPayload({ protocolVersion: 2 })),
      (command, self) => self.reply(command, frameType.helloAck, helloPayload({ pageSizeBytes: 65536 })),
    ];
    await using scripted = await ScriptedAgent.start(directory, (command, self) => answers.shift()?.(command, self));
    const target = { path: scripted.path };
    await expect(AgentClient.connect(target)).rejects.toEqual(code('VMMIG_AGENT_VERSION'));
    await expect(AgentClient.connect(target)).rejects.toEqual(code('VMMIG_AGENT_VERSION'));
    await expect(AgentClient.connect(target)).rejects.toEqual(code('VMMIG_AGENT_UNSUPPORTED'));
    const reason = new Error('enough');
    await expect(AgentClient.connect(target, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const later = AgentClient.connect(target, { signal: AbortSignal.timeout(50) });
    await expect(later).rejects.toMatchObject({ name: 'TimeoutError' });
  });
});

describe('scanning', () => {
  it('gives the complete map, also when the agent only sent what changed', async () => {
    let scans = 0;
    await using scripted = await agent((command, self) => {
      if (++scans === 1) return reportGroups(command, self, [group(1, 10), group(2, 20), group(3, 30)]);
      self.reply(command, frameType.disks, disksPayload([vda, { ...vda, name: 'vdb' }]));
      self.reply(command, frameType.groups, groupsPayload([group(2, 25)]));
      self.reply(command, frameType.removed, Buffer.from(u64(3)));
      self.reply(command, frameType.done, donePayload(2, 1, 4));
    });
    await using client = await AgentClient.connect({ path: scripted.path });
    const full = await client.scan({ mode: 'full' });
    expect(full).toMatchObject({ mode: 'full', scanMs: 5, pages: 6, skipped: { dirty: 12 } });
    expect(full.disks).toEqual([
      { index: 0, ...{ name: 'vda', serial: 'one', sizeBytes: 2 ** 30 }, pciAddress: vda.pci },
    ]);
    const changes = await client.scan({ mode: 'changes' });
    expect([...changes.runs.pfn]).toEqual([10, 25]);
    expect(changes.disks).toHaveLength(2);
  });

  it('cancels on abort and on timeout, and can scan again', async () => {
    await using scripted = await agent((command, self) => {
      if (command.type === frameType.cancel) self.reply(command, frameType.cancelled);
      else if (command.request === 3) reportGroups(command, self, [group(1, 10)]);
      else self.reply(command, frameType.disks, disksPayload([vda]));
    });
    await using client = await AgentClient.connect({ path: scripted.path });
    const reason = new Error('not now');
    const abort = new AbortController();
    const aborted = client.scan({ mode: 'full', signal: abort.signal });
    await expect(client.scan({ mode: 'full' })).rejects.toEqual(code('VMMIG_AGENT_BUSY'));
    abort.abort(reason);
    await expect(aborted).rejects.toBe(reason);
    await expect(client.scan({ mode: 'full', timeoutMs: 30 })).rejects.toEqual(code('VMMIG_AGENT_TIMEOUT'));
    expect((await client.scan({ mode: 'full' })).pages).toBe(2);
  });

  it('gives up on an agent that does not answer a cancel either', async () => {
    await using scripted = await agent();
    await using client = await AgentClient.connect({ path: scripted.path });
    const scan = client.scan({ mode: 'full', timeoutMs: 30 });
    await expect(client.ping({ timeoutMs: 30 })).rejects.toEqual(code('VMMIG_AGENT_TIMEOUT'));
    await expect(scan).rejects.toEqual(code('VMMIG_AGENT_TIMEOUT'));
    await expect(client.ping()).rejects.toEqual(code('VMMIG_AGENT_TIMEOUT'));
  });

  it('ends when the agent goes away', async () => {
    await using scripted = await agent((_command, self) => self.hangUp());
    await using client = await AgentClient.connect({ path: scripted.path });
    await expect(client.scan({ mode: 'full' })).rejects.toEqual(code('VMMIG_AGENT_DISCONNECTED'));
  });

  const lies: Record<string, (command: Command, self: ScriptedAgent) => void> = {
    'groups before the disks they are on': (command, self) =>
      self.reply(command, frameType.groups, groupsPayload([group(1, 1)])),
    'a run beyond its disk': (command, self) => reportGroups(command, self, [group(1, 2 ** 18)]),
    'two lists of disks': (command, self) => {
      self.reply(command, frameType.disks, disksPayload([vda]));
      self.reply(command, frameType.disks, disksPayload([vda]));
    },
    'an answer to another request': (command, self) =>
      self.reply({ ...command, request: 99 }, frameType.done, donePayload(1, 1, 1)),
    'a cancelled scan that nobody cancelled': (command, self) => self.reply(command, frameType.cancelled),
    'an unknown frame': (command, self) => self.reply(command, 0xee),
    'bytes that are no frame': (_command, self) => self.write(Buffer.alloc(64, 1)),
  };
  for (const [what, lie] of Object.entries(lies)) {
    it(`refuses ${what}`, async () => {
      await using scripted = await agent(lie);
      await using client = await AgentClient.connect({ path: scripted.path });
      await expect(client.scan({ mode: 'full' })).rejects.toEqual(code('VMMIG_AGENT_PROTOCOL'));
    });
  }

  it('refuses a disk that shrinks under the runs reported before', async () => {
    let scans = 0;
    await using scripted = await agent((command, self) => {
      if (++scans === 1) return reportGroups(command, self, [group(1, 1000)]);
      self.reply(command, frameType.disks, disksPayload([{ ...vda, sizeBytes: 4096 }]));
      self.reply(command, frameType.done, donePayload(2, 1, 4));
    });
    await using client = await AgentClient.connect({ path: scripted.path });
    await client.scan({ mode: 'full' });
    await expect(client.scan({ mode: 'changes' })).rejects.toEqual(code('VMMIG_AGENT_PROTOCOL'));
  });

  it('reports runs beyond its own limit as skipped', async () => {
    await using scripted = await agent((command, self) => reportGroups(command, self, [group(1, 10), group(2, 20)]));
    await using client = await AgentClient.connect({ path: scripted.path }, { maxRuns: 1 });
    const { pages, skipped } = await client.scan({ mode: 'full' });
    expect({ pages, skipped }).toEqual({ pages: 2, skipped: { dirty: 12, 'over-limit': 2 } });
  });
});
