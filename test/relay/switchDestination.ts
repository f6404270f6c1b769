/** The destination of a switch of a real guest: a relay that lets it run as soon as QEMU has its device state. */

import type { SwitchDestinationHandlers, SwitchDestinationOptions } from '../../relay/destination/switch/options.js';
import { SwitchDestination } from '../../relay/destination/switchDestination.js';
import { host } from './peers.js';
import { letRun, type Resumable } from './postcopy/guests.js';

type Given = Pick<SwitchDestinationOptions, 'credentials' | 'reconnectTimeoutMs'> & Partial<SwitchDestinationOptions>;

/** In front of a QEMU that waits for a post-copy; or of one whose guest runs, where another relay was before. */
export async function startSwitchDestination(
  there: Resumable,
  options: Given,
  handlers: Partial<SwitchDestinationHandlers> = {},
): Promise<SwitchDestination> {
  const defaults = { listen: { host }, qemuListens: Promise.resolve(new Map()), disks: [], heldLimitBytes: 0 };
  const relay = await SwitchDestination.start(
    { ...defaults, qemuSocketPath: there.socketPath, ...options },
    {
      permitted: () => {},
      ...handlers,
      loaded: async () => {
        handlers.loaded?.();
        if (options.takesOver !== true) await letRun(there);
        relay.tellRunning();
      },
    },
  );
  return relay;
}
