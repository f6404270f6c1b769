/** Which progress to show, given what was asked for and where it goes. */
import type { Sink } from '../output.js';
import { NoProgress } from './none.js';
import { PlainProgress } from './plain.js';
import { RawJsonProgress } from './rawjson.js';
import type { ProgressKind, ProgressRenderer } from './renderer.js';
import { TtyProgress } from './tty.js';

export function progressRenderer(kind: ProgressKind, sink: Sink): ProgressRenderer {
  switch (kind) {
    case 'none':
      return new NoProgress(sink);
    case 'rawjson':
      return new RawJsonProgress(sink);
    case 'plain':
      return new PlainProgress(sink);
    // Asked for or not: nothing animates off a terminal, or on one that cannot.
    case 'tty':
    case 'auto':
      return sink.animated ? new TtyProgress(sink) : new PlainProgress(sink);
  }
}
