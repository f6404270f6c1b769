/** What the two hosts of a migration have to have in common, whatever guest it is. */
import type { Prepared } from './prepared.js';
import type { Finding } from './report.js';

type Hosts = Pick<Prepared, 'source' | 'destination'>;

/** Of two clocks that a time service keeps. */
const mostSkewMs = 500;

export async function checkHosts(hosts: Hosts): Promise<Finding[]> {
  return [...(await checkVersions(hosts)), ...(await checkClocks(hosts))];
}

/** The relays do not negotiate: each release may speak another version of the link. */
async function checkVersions({ source, destination }: Hosts): Promise<Finding[]> {
  const [{ version: here }, { version: there }] = await Promise.all([source.rpc.greeted, destination.rpc.greeted]);
  if (here === there) return [];
  return [
    {
      severity: 'refuse',
      code: 'VMMIG_VERSION_MISMATCH',
      message: `${source.host.name} has vmmig ${here} and ${destination.host.name} has ${there}`,
      remedy: 'install the same version on both',
    },
  ];
}

/** As far as two round trips can tell. */
async function checkClocks({ source, destination }: Hosts): Promise<Finding[]> {
  const [here, there] = await Promise.all([source.clock, destination.clock]);
  const skewMs = there.offsetMs - here.offsetMs;
  const doubtMs = (here.rttMs + there.rttMs) / 2;
  if (Math.abs(skewMs) - doubtMs <= mostSkewMs) return [];
  const seconds = (Math.abs(skewMs) / 1000).toPrecision(2);
  const order = skewMs > 0 ? 'ahead of' : 'behind';
  return [
    {
      severity: 'warn',
      code: 'VMMIG_CLOCK_SKEW',
      message:
        `the clock of ${destination.host.name} is ${seconds} s ${order} that of ${source.host.name}: a guest that takes its ` +
        'time from its host would see it jump',
      remedy: 'let a time service (chrony, systemd-timesyncd) keep both',
    },
  ];
}
