/** What a QMP server says. */
import { QmpError } from '../../../qmp/errors.js';
import { LineFramer } from '../../../qmp/framer.js';
import { parseMessage } from '../../../qmp/messages.js';
import { QmpSchema } from '../../../qmp/schema.js';
import { QmpSession } from '../../../qmp/session.js';
import { GREETING } from '../../qmp/fakeMonitor.js';
import { type Decoder, require } from '../decoder.js';

const isTyped = (error: unknown) => error instanceof QmpError;
const timestamp = { seconds: 1, microseconds: 2 };
const messages = [
  GREETING,
  { return: {}, id: 'ID-1' },
  { return: { status: 'completed', ram: { transferred: 12345678901 } }, id: 'ID-2' },
  { error: { class: 'GenericError', desc: 'größer 😀' }, id: 'ID-3' },
  { event: 'MIGRATION', data: { status: 'active' }, timestamp },
  { event: 'STOP', timestamp },
];
const words = ['"return":', '"error":', '"event":', '"QMP":', '"id":', '"ID-2"', '"ID-3"', '"class":', '"desc":'];
const json = [
  ...words,
  '"data":',
  '"timestamp":',
  '{}',
  '[]',
  'null',
  'true',
  '1e999',
  '"\\ud800"',
  '{"toString":1}',
  '"__proto__":',
  '[[[[',
];

function line(message: object): Buffer {
  return Buffer.from(`${JSON.stringify(message)}\r\n`);
}

function lineStarts(input: Buffer): number[] {
  const starts: number[] = [];
  for (let at = input.indexOf(10) + 1; at > 0 && at < input.length; at = input.indexOf(10, at) + 1) starts.push(at);
  return starts;
}

/** Three commands, of which the ids are those of the session: what the server said is read with its ids replaced. */
function converse(chunks: readonly Buffer[]): string[] {
  const record: string[] = [];
  let prefix = '';
  let ends = 0;
  const settled = new Map<string, number>();
  const session: QmpSession = new QmpSession(
    {
      send(text) {
        prefix = /"id":"(.*)-\d+"/.exec(text)![1]!;
      },
      ready(_greeting, oobEnabled) {
        record.push('ready');
        for (const name of ['a', 'b', 'c']) {
          const settle = (outcome: unknown) => {
            settled.set(name, (settled.get(name) ?? 0) + 1);
            require(!(outcome instanceof Error) || isTyped(outcome), () => `rejected with ${outcome}`);
            record.push(`${name} ${outcome instanceof QmpError ? outcome.code : JSON.stringify(outcome)}`);
          };
          session.submit({ name, oob: oobEnabled && name === 'c', resolve: settle, reject: settle });
        }
      },
      event: ({ event, data }) => record.push(`event ${event} ${JSON.stringify(data)}`),
      ended(cause) {
        ends++;
        require(isTyped(cause), () => `ended with ${cause}`);
        record.push(`ended ${cause?.code}`);
      },
    },
    { maxLineBytes: 4000 },
  );
  for (const chunk of chunks) {
    // The ids are known once the greeting was answered; an id that is cut in two by the chunks stays a stranger's.
    const text = prefix === '' ? chunk : Buffer.from(chunk.toString('latin1').replaceAll('ID', prefix), 'latin1');
    session.receive(text);
  }
  session.receiveEnd();
  require(ends === 1, () => `ended ${ends} times`);
  for (const [name, times] of settled) require(times === 1, () => `${name} was settled ${times} times`);
  require(!record.includes('ready') || settled.size === 3, () => 'a command that was never settled');
  return record;
}

export const qmpDecoders: readonly Decoder[] = [
  {
    name: 'qmp-lines',
    seeds: () => [Buffer.concat(messages.map(line)), Buffer.from('\r\n \n{}\n'), Buffer.from('ä'.repeat(300))],
    records: lineStarts,
    decode(chunks) {
      const framer = new LineFramer(1000);
      const value: string[] = [];
      for (const chunk of chunks) {
        for (const each of framer.push(chunk)) value.push(each);
        chunk.fill(0xa5);
      }
      require(framer.pendingBytes <= 1000, () => `${framer.pendingBytes} bytes are kept`);
      return { value };
    },
    isTyped,
  },
  {
    name: 'qmp-messages',
    seeds: () => messages.map((message) => Buffer.from(JSON.stringify(message))),
    dictionary: json,
    decode: ([text]) => ({ value: parseMessage(text!.toString('utf8')) }),
    isTyped,
    isWhole: true,
  },
  {
    name: 'qmp-session',
    seeds: () => [Buffer.concat(messages.map(line)), Buffer.concat([line(GREETING), line({ return: {}, id: 'ID-1' })])],
    dictionary: json,
    records: lineStarts,
    // A session by lines, so that ids can be put in.
    decode: ([bytes]) => ({ value: converse(cutLines(bytes!)) }),
    isTyped,
    isWhole: true,
  },
  {
    name: 'qmp-schema',
    seeds: () => [
      Buffer.from(
        JSON.stringify([
          { name: 'migrate', 'meta-type': 'command', 'arg-type': '1', 'ret-type': '0', 'allow-oob': true },
          {
            name: '1',
            'meta-type': 'object',
            members: [
              { name: 'uri', type: 'str' },
              { name: 'channels', type: '[2]' },
            ],
          },
          { name: '[2]', 'meta-type': 'array', 'element-type': '2' },
          {
            name: '2',
            'meta-type': 'object',
            members: [{ name: 'addr', type: '3' }],
            variants: [{ case: 'x', type: '4' }],
          },
          { name: '3', 'meta-type': 'alternate', members: [{ type: '4' }] },
          { name: '4', 'meta-type': 'enum', members: [{ name: 'transport' }], values: ['transport'] },
          { name: 'STOP', 'meta-type': 'event', 'arg-type': '0' },
          { name: 'str', 'meta-type': 'builtin', 'json-type': 'string' },
        ]),
      ),
    ],
    dictionary: [
      ...json,
      '"meta-type":',
      '"members":',
      '"arg-type":',
      '"element-type":',
      '"variants":',
      '"type":',
      '"enum"',
    ],
    decode([text]) {
      let entries: unknown;
      try {
        entries = JSON.parse(text!.toString('utf8'));
      } catch {
        return { value: 'no JSON' };
      }
      const schema = new QmpSchema(entries as never);
      const paths = [undefined, 'uri', 'channels', 'channels.addr', 'channels.addr.transport', 'channels.addr.x.y'];
      return { value: [...paths.map((path) => schema.supports('migrate', path)), schema.allowsOob('migrate')] };
    },
    isTyped,
    isWhole: true,
  },
];

function cutLines(bytes: Buffer): Buffer[] {
  const starts = [0, ...lineStarts(bytes), bytes.length];
  return starts.slice(1).map((end, at) => bytes.subarray(starts[at], end));
}
