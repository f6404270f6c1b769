import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { QmpError } from '../../qmp/errors.js';
import { QmpSession } from '../../qmp/session.js';
import { type FakeRequest, GREETING } from './fakeMonitor.js';

/**
 * A session that executes five commands against whatever `bytesFor` makes of a sound server's bytes. Records all that
 * comes out of it, and checks what must hold for any input.
 */
function converse(deliver: (session: QmpSession, bytes: Buffer) => void): string[] {
  const record: string[] = [];
  let ends = 0;
  const sent: FakeRequest[] = [];
  const session: QmpSession = new QmpSession(
    {
      send: (text) => sent.push(JSON.parse(text) as FakeRequest),
      ready: () => {
        record.push('ready');
        for (const name of ['a', 'b', 'c', 'd', 'e']) {
          let settled = 0;
          const settle = (outcome: unknown) => {
            settled++;
            expect(settled).toBe(1);
            if (outcome instanceof Error) expect(outcome).toBeInstanceOf(QmpError);
            record.push(`${name}: ${outcome instanceof QmpError ? outcome.code : JSON.stringify(outcome)}`);
          };
          session.submit({ name, oob: false, resolve: settle, reject: settle });
        }
      },
      event: ({ event, data }) => record.push(`event ${event} ${JSON.stringify(data)}`),
      ended: (cause) => {
        ends++;
        expect(ends).toBe(1);
        expect(cause).toBeInstanceOf(QmpError);
        record.push(`ended: ${cause?.code}`);
      },
    },
    { maxLineBytes: 2_000 },
  );
  const line = (message: object) => `${JSON.stringify(message)}\r\n`;
  deliver(session, Buffer.from(line(GREETING)));
  if (sent.length > 0) {
    deliver(session, Buffer.from(line({ return: {}, id: sent[0]!.id })));
    const [, a, b, c, d] = sent;
    const timestamp = { seconds: 1, microseconds: 2 };
    const answers = [
      line({ return: 'größer 😀', id: b?.id }),
      line({ event: 'MIGRATION', data: { status: 'active' }, timestamp }),
      line({ error: { class: 'GenericError', desc: 'no' }, id: a?.id }),
      line({ return: { nested: [1, { two: [] }] }, id: d?.id }),
      line({ event: 'STOP', timestamp }),
      line({ return: 'x'.repeat(500), id: c?.id }),
    ];
    deliver(session, Buffer.from(answers.join('')));
  }
  session.receiveEnd();
  expect(ends).toBe(1);
  return record;
}

const expected = [
  'ready',
  'b: "größer 😀"',
  'event MIGRATION {"status":"active"}',
  'a: VMMIG_QMP_COMMAND',
  'd: {"nested":[1,{"two":[]}]}',
  'event STOP {}',
  `c: "${'x'.repeat(500)}"`,
  'e: VMMIG_QMP_INTERRUPTED',
  'ended: VMMIG_QMP_INTERRUPTED',
];

describe('QmpSession, whatever the peer sends,', () => {
  it('understands the same when the bytes are split at any place', () => {
    expect(converse((session, bytes) => session.receive(bytes))).toEqual(expected);
    let longest = 0;
    for (let at = 0; at <= longest; at++) {
      const record = converse((session, bytes) => {
        longest = Math.max(longest, bytes.length);
        session.receive(bytes.subarray(0, at));
        session.receive(bytes.subarray(at));
      });
      expect(record).toEqual(expected);
    }
    expect(longest).toBeGreaterThan(700);
  });

  it('understands the same when every byte comes alone', () => {
    const record = converse((session, bytes) => {
      for (let index = 0; index < bytes.length; index++) session.receive(bytes.subarray(index, index + 1));
    });
    expect(record).toEqual(expected);
  });

  it('settles each command once and ends with a typed error when it is cut off anywhere', () => {
    fc.assert(
      fc.property(fc.nat(3), fc.nat(1000), (index, keepBytes) => {
        let turn = 0;
        converse((session, bytes) => {
          const cut = turn++ >= index;
          session.receive(cut ? bytes.subarray(0, keepBytes) : bytes);
          if (cut) session.receiveEnd();
        });
      }),
      { numRuns: 300 },
    );
  });

  it('settles each command once and ends with a typed error when bytes are damaged', () => {
    const damage = fc.array(fc.tuple(fc.nat(1000), fc.nat(255)), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(damage, (changes) => {
        converse((session, bytes) => {
          for (const [at, value] of changes) bytes[at % bytes.length] = value;
          session.receive(bytes);
        });
      }),
      { numRuns: 500 },
    );
  });

  it('settles each command once and ends with a typed error for garbage after any message', () => {
    const brackets = fc.string({ unit: fc.constantFrom('{', '}', '[', ']', '"', ':', '\n', '\\', '0') });
    const garbage = fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc.json().map((text) => Buffer.from(`${text}\n`)),
      fc.array(brackets).map((parts) => Buffer.from(parts.join(''))),
      fc.constant(Buffer.alloc(3_000, '[')),
    );
    fc.assert(
      fc.property(fc.nat(3), garbage, (index, noise) => {
        let turn = 0;
        converse((session, bytes) => {
          if (turn++ === index) session.receive(noise);
          session.receive(bytes);
        });
      }),
      { numRuns: 500 },
    );
  });

  it('settles each command once for well-formed messages in any order', () => {
    const id = fc.oneof(fc.constant('ours'), fc.string(), fc.constant(undefined), fc.jsonValue());
    const message = fc.oneof(
      fc.record({ return: fc.jsonValue(), id }),
      fc.record({ error: fc.record({ class: fc.string(), desc: fc.string() }), id }),
      fc.record({ event: fc.string(), data: fc.dictionary(fc.string(), fc.jsonValue()) }),
      fc.constant(GREETING),
    );
    fc.assert(
      fc.property(fc.array(message, { maxLength: 10 }), (messages) => {
        converse((session, bytes) => {
          session.receive(bytes);
          const known = /"id":"([^"]+)"/.exec(bytes.toString())?.[1];
          const text = messages.map((each) => `${JSON.stringify(each).replace('"ours"', `"${known}"`)}\n`).join('');
          session.receive(Buffer.from(text));
        });
      }),
      { numRuns: 300 },
    );
  });

  it('survives JSON nested a million deep', () => {
    const session = new QmpSession({ send() {}, ready() {}, event() {}, ended() {} });
    session.receive(Buffer.from(`${'['.repeat(1_000_000)}${']'.repeat(1_000_000)}\n`));
    expect(() => session.submit({ name: 'stop', oob: false, resolve() {}, reject() {} })).toThrow(QmpError);
  });
});
