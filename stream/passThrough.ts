/**
 * A handler that writes what it is told back as it was. Spread it and override the methods that should change something:
 *
 *     const encoder = new StreamEncoder();
 *     const decoder: StreamDecoder = new StreamDecoder({ ...passThrough(encoder, () => decoder.lastFlags), page: … });
 */
import { RamFlag } from './constants.js';
import type { StreamEncoder } from './encoder.js';
import type { StreamHandler } from './handler.js';

/** @param lastFlags the decoder's `lastFlags`, which tell whether a page's record named its block */
export function passThrough(encoder: StreamEncoder, lastFlags: () => number): Required<StreamHandler> {
  const keepNaming = () => {
    if ((lastFlags() & RamFlag.continue) === 0) encoder.nameNextBlock();
  };
  return {
    header: (version) => encoder.header(version),
    configuration: (raw) => encoder.configuration(raw),
    command: (command, data) => encoder.command(command, data),
    packaged: (nested) => encoder.packaged(nested),
    sectionStart({ type, id, name, instance, version }) {
      if (type === 'start' || type === 'full') encoder.sectionStart(type, id, name, instance, version);
      else encoder.sectionContinue(type, id);
    },
    ramBlocks: (_blocks, raw) => encoder.raw(raw),
    page(block, pageIndex, source, start) {
      keepNaming();
      encoder.page(block, pageIndex, source, start);
    },
    zeroPage(block, pageIndex, fill) {
      keepNaming();
      encoder.zeroPage(block, pageIndex, fill);
    },
    ramRecord: () => encoder.multifdFlush(),
    sectionEnd({ id }) {
      encoder.eos();
      encoder.footer(id);
    },
    tailStart() {},
    tail: (bytes) => encoder.tail(bytes),
    eof: () => encoder.eof(),
    vmdesc: (_json, raw) => encoder.raw(raw),
    end() {},
  };
}
