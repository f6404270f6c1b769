/** Every decoder of bytes from elsewhere. */
import type { Decoder } from '../decoder.js';
import { agentDecoders } from './agent.js';
import { diskDecoders } from './disk.js';
import { linkDecoders } from './link.js';
import { qmpDecoders } from './qmp.js';
import { relayDecoders } from './relay.js';
import { streamDecoders } from './stream.js';

export const decoders: readonly Decoder[] = [
  ...streamDecoders,
  ...relayDecoders,
  ...linkDecoders,
  ...agentDecoders,
  ...diskDecoders,
  ...qmpDecoders,
];
