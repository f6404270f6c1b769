/** Writes down what a decoder tells, so that two decodings can be compared. */
import { StreamDecoder, type StreamDecoderOptions, StreamError, type StreamHandler } from '../../stream/index.js';

export type StreamEvent = readonly unknown[];

/** Decodes chunks to the end; what the handler was told, tail in one piece. A StreamError is the last event. */
export function decode(chunks: Iterable<Buffer>, options: StreamDecoderOptions = {}): StreamEvent[] {
  const events: StreamEvent[] = [];
  const tail: Buffer[] = [];
  const decoder = new StreamDecoder(recorder(events, tail), options);
  let failure: StreamEvent | null = null;
  try {
    for (const chunk of chunks) decoder.feed(chunk);
    decoder.end();
  } catch (error) {
    if (!(error instanceof StreamError)) throw error;
    failure = ['error', error.code, error.offset];
  }
  if (tail.length > 0) events.push(['tail', Buffer.concat(tail).toString('hex')]);
  if (failure !== null) events.push(failure);
  return events;
}

function recorder(events: StreamEvent[], tail: Buffer[]): Required<StreamHandler> {
  const hex = (bytes: Buffer) => bytes.toString('hex');
  return {
    header: (version) => events.push(['header', version]),
    configuration: (raw, decoded) => events.push(['configuration', hex(raw), decoded]),
    command: (command, data, raw) => events.push(['command', command, hex(data), hex(raw)]),
    packaged: (nested, raw) => events.push(['packaged', hex(nested), hex(raw)]),
    sectionStart: (section) => events.push(['sectionStart', section]),
    ramBlocks: (blocks, raw) => events.push(['ramBlocks', blocks, hex(raw)]),
    page: (block, index, source, start) =>
      events.push(['page', block.name, index, hex(source.subarray(start, start + 4096))]),
    zeroPage: (block, index, fill) => events.push(['zeroPage', block.name, index, fill]),
    ramRecord: (record) => events.push(['ramRecord', record]),
    sectionEnd: (section) => events.push(['sectionEnd', section]),
    tailStart: (reason, name) => events.push(['tailStart', reason, name]),
    tail: (bytes) => void tail.push(Buffer.from(bytes)),
    eof: () => events.push(['eof']),
    vmdesc: (json) => events.push(['vmdesc', json.toString()]),
    end: () => events.push(['end']),
  };
}

/** A stream cut into chunks of one size. */
export function* cut(stream: Buffer, chunkBytes: number): Generator<Buffer> {
  for (let at = 0; at < stream.length; at += chunkBytes) yield stream.subarray(at, at + chunkBytes);
}
