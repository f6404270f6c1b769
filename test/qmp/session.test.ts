import { describe, expect, it } from 'vitest';
import type { QmpError } from '../../qmp/errors.js';
import { MAX_IN_FLIGHT, QmpSession, type QmpSessionOptions } from '../../qmp/session.js';
import type { QmpEvent } from '../../qmp/types/events.js';
import { type FakeRequest, GREETING } from './fakeMonitor.js';

/** A session with its outputs recorded. */
class Recorded {
  readonly sent: FakeRequest[] = [];
  readonly events: QmpEvent[] = [];
  readonly outcomes: Record<string, unknown> = {};
  readonly ends: (QmpError | undefined)[] = [];
  ready: boolean | undefined;
  readonly session: QmpSession;

  constructor(options?: QmpSessionOptions) {
    this.session = new QmpSession(
      {
        send: (text) => this.sent.push(JSON.parse(text) as FakeRequest),
        ready: (_, oobEnabled) => {
          this.ready = oobEnabled;
        },
        event: (event) => this.events.push(event),
        ended: (cause) => this.ends.push(cause),
      },
      options,
    );
  }

  static negotiated(options?: QmpSessionOptions): Recorded {
    const recorded = new Recorded(options);
    recorded.receive(GREETING);
    recorded.reply(recorded.sent.shift()!);
    return recorded;
  }

  receive(...messages: object[]): void {
    for (const message of messages) this.session.receive(Buffer.from(`${JSON.stringify(message)}\n`));
  }

  reply({ id }: FakeRequest, value: unknown = {}): void {
    this.receive({ return: value, id });
  }

  /** Submits a command whose outcome will be found under `name`. */
  submit(name: string, oob = false) {
    return this.session.submit({
      name,
      oob,
      resolve: (value) => {
        this.outcomes[name] = value;
      },
      reject: (error) => {
        this.outcomes[name] = error;
      },
    });
  }
}

const failure = (id?: unknown) => ({
  error: { class: 'GenericError', desc: 'no' },
  ...(id === undefined ? {} : { id }),
});

describe('QmpSession negotiation', () => {
  it('enables oob when it is offered', () => {
    const session = new Recorded();
    session.receive(GREETING);
    expect(session.sent).toMatchObject([{ execute: 'qmp_capabilities', arguments: { enable: ['oob'] } }]);
    expect(session.ready).toBeUndefined();
    session.reply(session.sent[0]!);
    expect(session.ready).toBe(true);
  });

  it.each([
    ['is not offered', [], undefined],
    ['is not wanted', ['oob'], false],
    ['is offered in a form that is not understood', [{ oob: 2 }], undefined],
  ])('does without oob when it %s', (_, capabilities, oob) => {
    const session = new Recorded({ oob });
    session.receive({ QMP: { ...GREETING.QMP, capabilities } });
    expect(session.sent).toMatchObject([{ arguments: { enable: [] } }]);
    session.reply(session.sent[0]!);
    expect(session.ready).toBe(false);
    expect(() => session.submit('migrate-pause', true)).toThrow(/not negotiated/);
  });

  it('fails when oob is insisted on and not offered', () => {
    const session = new Recorded({ oob: true });
    session.receive({ QMP: { ...GREETING.QMP, capabilities: [] } });
    expect(session.ends).toMatchObject([{ code: 'VMMIG_QMP_GREETING' }]);
  });

  it('fails when QEMU refuses it', () => {
    const session = new Recorded();
    session.receive(GREETING);
    session.receive(failure(session.sent[0]!.id));
    expect(session.ends).toHaveLength(1);
    expect(session.ends).toMatchObject([{ code: 'VMMIG_QMP_GREETING' }]);
  });

  it.each<[string, string]>([
    ['a reply', '{"return": {}}'],
    ['a greeting without version', '{"QMP": {"capabilities": []}}'],
    ['a greeting that is null', '{"QMP": null}'],
    ['no JSON', 'HTTP/1.1 400 Bad Request'],
    ['pretty-printed JSON', '{'],
  ])('fails when %s comes first', (_, line) => {
    const session = new Recorded();
    session.session.receive(Buffer.from(`${line}\r\n`));
    expect(session.ends).toMatchObject([{ code: 'VMMIG_QMP_GREETING' }]);
    expect(() => session.submit('stop')).toThrow(expect.objectContaining({ code: 'VMMIG_QMP_INTERRUPTED' }));
  });

  it('passes over what happened before it was greeted', () => {
    const session = new Recorded();
    session.receive({ event: 'RESUME', timestamp: { seconds: 1, microseconds: 1 } }, GREETING);
    session.reply(session.sent.shift()!);
    expect([session.ready, session.events, session.ends]).toEqual([expect.any(Boolean), [], []]);
  });

  it('takes events while it negotiates', () => {
    const session = new Recorded();
    session.receive(GREETING, { event: 'RESUME', timestamp: { seconds: 1, microseconds: 1 } });
    expect(session.events).toMatchObject([{ event: 'RESUME', data: {} }]);
  });
});

describe('QmpSession commands', () => {
  it('keeps at most eight in-band commands in flight and sends the others in order', () => {
    const session = Recorded.negotiated();
    const names = Array.from({ length: 20 }, (_, index) => `command-${index}`);
    for (const name of names) session.submit(name);
    expect(session.sent.map(({ execute }) => execute)).toEqual(names.slice(0, MAX_IN_FLIGHT));
    for (let next = 0; next < names.length; next++) {
      session.reply(session.sent[next]!, next);
      expect(session.sent).toHaveLength(Math.min(names.length, MAX_IN_FLIGHT + next + 1));
    }
    expect(session.sent.map(({ execute }) => execute)).toEqual(names);
    expect(session.outcomes).toEqual(Object.fromEntries(names.map((name, index) => [name, index])));
  });

  it('sends out-of-band commands past the queue, and counts them not', () => {
    const session = Recorded.negotiated();
    for (let index = 0; index < 9; index++) session.submit(`command-${index}`);
    session.submit('migrate-pause', true);
    expect(session.sent[8]).toMatchObject({ 'exec-oob': 'migrate-pause' });
    session.reply(session.sent[8]!);
    expect(session.outcomes).toEqual({ 'migrate-pause': {} });
    expect(session.sent).toHaveLength(9);
  });

  it('settles by id, in whatever order replies come', () => {
    const session = Recorded.negotiated();
    for (const name of ['a', 'b', 'c']) session.submit(name);
    const [a, b, c] = session.sent;
    session.receive({ return: 3, id: c!.id }, failure(a!.id), { return: 2, id: b!.id });
    expect(session.outcomes).toMatchObject({ b: 2, c: 3, a: { code: 'VMMIG_QMP_COMMAND', command: 'a', desc: 'no' } });
  });

  it('never sends a command that was abandoned while it waited', () => {
    const session = Recorded.negotiated();
    for (let index = 0; index < 8; index++) session.submit(`command-${index}`);
    const waiting = session.submit('abandoned');
    session.submit('last');
    expect(waiting.sent).toBe(false);
    session.session.abandon(waiting);
    session.reply(session.sent[0]!);
    expect(session.sent.at(-1)).toMatchObject({ execute: 'last' });
    expect(session.outcomes).toEqual({ 'command-0': {} });
  });

  it('drops the late reply to an abandoned command, and holds its place until then', () => {
    const session = Recorded.negotiated();
    const abandoned = session.submit('abandoned');
    for (let index = 0; index < 8; index++) session.submit(`command-${index}`);
    session.session.abandon(abandoned);
    expect(abandoned.sent).toBe(true);
    expect(session.sent).toHaveLength(8);
    session.reply(session.sent[0]!, 'late');
    expect(session.sent).toHaveLength(9);
    expect(session.outcomes).toEqual({});
  });

  it.each(['\ud800', 'a\udfffb', '\\\ud83d', '\ufffe', '\u{1ffff}', '\ufdd0'])(
    'refuses text QEMU cannot take: %j',
    (text) => {
      const session = Recorded.negotiated();
      expect(() => session.submit(text)).toThrow(expect.objectContaining({ code: 'VMMIG_QMP_PROTOCOL' }));
      session.submit('next');
      expect(session.sent).toHaveLength(1);
    },
  );

  it.each(['😀', '\\ud800', '\\\\ud800', '\0', '\ufffd', 'é'])('sends text QEMU takes: %j', (text) => {
    const session = Recorded.negotiated();
    session.submit(text);
    expect(session.sent).toMatchObject([{ execute: text }]);
  });

  it('refuses a command longer than a line may be', () => {
    const session = Recorded.negotiated({ maxLineBytes: 300 });
    expect(() => session.submit('x'.repeat(300))).toThrow(/longer than 300 bytes/);
  });
});

describe('QmpSession replies that belong to no command', () => {
  const running = () => {
    const session = Recorded.negotiated();
    session.submit('a');
    return session;
  };

  it.each<[string, object]>([
    ['a success with an id of an earlier client', { return: 1, id: 'libvirt-7' }],
    ['an error with an id of an earlier client', failure('libvirt-7')],
    ['an id that is no string', { return: 1, id: { a: [1] } }],
    ['an id that is null', failure(null)],
    ['a success without id', { return: 1 }],
  ])('drops %s', (_, message) => {
    const session = running();
    session.receive(message);
    expect(session.ends).toEqual([]);
    expect(session.outcomes).toEqual({});
    expect(session.session.strayReplies).toBe(1);
    session.reply(session.sent[0]!, 'right');
    expect(session.outcomes).toEqual({ a: 'right' });
  });

  it('ends when an error without id comes while commands are in flight: one of them was not understood', () => {
    const session = running();
    session.receive(failure());
    expect(session.ends).toMatchObject([{ code: 'VMMIG_QMP_PROTOCOL' }]);
    expect(session.outcomes).toMatchObject({
      a: { code: 'VMMIG_QMP_INTERRUPTED', sent: true, cause: session.ends[0] },
    });
  });

  it('drops an error without id while nothing is in flight', () => {
    const session = Recorded.negotiated();
    session.receive(failure());
    expect(session.ends).toEqual([]);
    expect(session.session.strayReplies).toBe(1);
  });

  it('ends when a command is answered twice', () => {
    const session = running();
    session.reply(session.sent[0]!, 1);
    session.reply(session.sent[0]!, 2);
    expect(session.outcomes).toEqual({ a: 1 });
    expect(session.ends).toMatchObject([{ code: 'VMMIG_QMP_PROTOCOL' }]);
  });
});

describe('QmpSession end', () => {
  it('fails every unsettled command and tells which were sent', () => {
    const session = Recorded.negotiated();
    for (let index = 0; index < 9; index++) session.submit(`command-${index}`);
    const reset = new Error('ECONNRESET');
    session.session.receiveEnd(reset);
    expect(session.outcomes['command-0']).toMatchObject({ reason: 'disconnect', sent: true, command: 'command-0' });
    expect(session.outcomes['command-8']).toMatchObject({ reason: 'disconnect', sent: false, command: 'command-8' });
    expect(session.ends).toMatchObject([{ code: 'VMMIG_QMP_INTERRUPTED', cause: reset }]);
    session.session.receiveEnd();
    session.reply(session.sent[0]!);
    expect(session.ends).toHaveLength(1);
  });

  it('says when the peer stopped in the middle of a message', () => {
    const session = Recorded.negotiated();
    session.session.receive(Buffer.from('{"return": '));
    session.session.receiveEnd();
    expect(session.ends[0]?.message).toMatch(/in the middle of a message/);
  });

  it.each<[string, object]>([
    ['a second greeting', GREETING],
    ['a message of no kind', { id: 1 }],
    ['a message of two kinds', { return: 1, error: { class: 'A', desc: 'b' } }],
    ['an error without description', { error: { class: 'A' }, id: 1 }],
    ['an event without time', { event: 'STOP' }],
    ['an event whose data is a list', { event: 'STOP', data: [], timestamp: { seconds: 1, microseconds: 1 } }],
    ['a list', []],
  ])('comes with a protocol error for %s', (_, message) => {
    const session = Recorded.negotiated();
    session.receive(message);
    expect(session.ends).toMatchObject([{ code: 'VMMIG_QMP_PROTOCOL' }]);
  });
});
