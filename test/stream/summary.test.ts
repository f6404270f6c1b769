import { describe, expect, it } from 'vitest';
import { formatSummary, summarise } from '../../stream/index.js';
import {
  configuration,
  contents,
  EOF,
  HEADER,
  memSize,
  page,
  postcopyStream,
  precopyStream,
  section,
  u8,
  vmdesc,
  zero,
} from './bytes.js';
import { cut } from './recorder.js';

async function* chunks(stream: Buffer): AsyncGenerator<Buffer> {
  yield* cut(stream, 1000);
}

describe('the summary', () => {
  it('of a pre-copy counts pages by block and kind, sections and commands', async () => {
    const stream = precopyStream();
    expect(await summarise(chunks(stream))).toEqual({
      lengthBytes: stream.length,
      configuration: {
        machine: 'pc-q35-7.2',
        capabilities: ['x-ignore-shared'],
        subsections: ['configuration/capabilities'],
      },
      blocks: [
        {
          name: 'pc.ram',
          lengthBytes: 0x8000,
          pageSizeBytes: null,
          gpa: 0,
          pageRecords: 3,
          zeroRecords: 2,
          uniquePages: 4,
        },
        {
          name: 'pc.rom',
          lengthBytes: 0x2000,
          pageSizeBytes: null,
          gpa: 0xc0000,
          pageRecords: 1,
          zeroRecords: 1,
          uniquePages: 2,
        },
      ],
      ramSections: { start: 1, part: 2, end: 1, full: 0 },
      multifdFlushes: 1,
      commands: [
        { name: 'OPEN_RETURN_PATH', count: 1, dataBytes: 0 },
        { name: 'PING', count: 1, dataBytes: 4 },
        { name: 'SWITCHOVER_START', count: 1, dataBytes: 0 },
      ],
      tail: { reason: 'device-state', firstSection: 'timer', lengthBytes: expect.any(Number) },
      devices: [],
      totals: { ramBytes: 0xa000, pageRecords: 4, zeroRecords: 3, uniquePages: 6 },
      problem: null,
    });
  });

  it('of a post-copy tells of the package', async () => {
    const summary = await summarise(chunks(postcopyStream()));
    expect(summary).toMatchObject({ tail: null, devices: null, problem: null });
    expect(summary.commands.map(({ name }) => name)).toContain('PACKAGED');
  });

  it('of a damaged stream tells what came before and where it ends', async () => {
    const good = Buffer.concat([HEADER, section('start', memSize(['a', 0x1000])), section('part', zero(0, 0, 'a'))]);
    const summary = await summarise(chunks(Buffer.concat([good, u8(0x99)])));
    expect(summary.totals.zeroRecords).toBe(1);
    expect(summary.problem).toMatchObject({ code: 'VMMIG_STREAM_CORRUPT', offset: good.length });
    const cutOff = await summarise(chunks(precopyStream().subarray(0, -1)));
    expect(cutOff.problem).toMatchObject({ code: 'VMMIG_STREAM_TRUNCATED', offset: precopyStream().length - 1 });
  });

  it('keeps only the end of a long tail, which is enough for the description', async () => {
    const stream = precopyStream();
    const tail = Buffer.concat([stream.subarray(0, -40), contents(1), EOF, vmdesc('{"devices":[{"name":"x"}]}')]);
    const summary = await summarise(chunks(tail), { tailBytes: 100 });
    expect(summary.devices).toMatchObject([{ name: 'x' }]);
    expect(summary.problem).toBeNull();
  });

  it('can be stopped', async () => {
    const signal = AbortSignal.abort(new Error('stop'));
    await expect(summarise(chunks(precopyStream()), { signal })).rejects.toThrow('stop');
  });

  it('passes on what the chunks throw', async () => {
    const broken = async function* (): AsyncGenerator<Buffer> {
      yield HEADER;
      throw new Error('disk on fire');
    };
    await expect(summarise(broken())).rejects.toThrow('disk on fire');
  });

  it('is written as aligned tables', async () => {
    const stream = Buffer.concat([
      HEADER,
      configuration('pc-q35-7.2'),
      section('start', memSize(['pc.ram', 0x8000], ['\x1b[31mrom', 0x2000])),
      section('end', page(0, contents(1), 'pc.ram'), zero(1)),
      EOF,
    ]);
    expect(formatSummary(await summarise(chunks(stream)))).toBe(
      [
        'stream        4,232 bytes',
        'machine       pc-q35-7.2',
        'RAM sections  1 start, 1 end',
        '',
        'RAM block   bytes  pages  sent  zero  distinct  page size  address',
        'pc.ram     32,768      8     1     1         2          -        -',
        '?[31mrom    8,192      2     0     0         0          -        -',
        'total      40,960     10     1     1         2',
        '',
      ].join('\n'),
    );
  });
});
