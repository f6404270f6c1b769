/**
 * Whether the destination has the guest's disks, and no others under their names: told by what is in them, from a few
 * blocks, before anything is read from them and before anything is changed. The guest goes on writing meanwhile, so a
 * block counts as another one only if it is so while the source's stays as it is.
 */
import type { DiskImage, DiskSamples } from '../disk/index.js';
import { call } from '../host-service/protocol.js';
import { type ImagePair, isRestorable } from './plan.js';
import type { Prepared } from './prepared.js';
import type { Finding } from './report.js';

export interface DiskProofs {
  readonly findings: readonly Finding[];
  /** Of the plan's restorable disks: those that the destination cannot read. */
  readonly unreadable: readonly number[];
}

/** How a disk is looked at: as the guest reads it, or the file that holds it. */
interface View {
  readonly pair: ImagePair;
  readonly here: DiskImage;
  readonly there: DiskImage;
  readonly mayGrow: boolean;
}

interface Look extends View {
  readonly samples: DiskSamples | null;
  readonly verdict: 'same' | 'different' | 'unproven' | 'unreadable';
  readonly compared: number;
  readonly differing: readonly number[];
}

/** Storage that shows a write later on one host than on the other has so many chances. */
const looksAgain = 2;

/** Asks both hosts. */
export async function proveDisks(
  { source, destination, plan, inspection }: Pick<Prepared, 'source' | 'destination' | 'plan' | 'inspection'>,
  signal?: AbortSignal,
): Promise<DiskProofs> {
  const owned = plan.images.filter(({ device }) => !device.readOnly && !device.shareable);
  const { pid, startTime } = inspection.process;
  const paths = owned.map(({ there }) => there.path);
  const asked = call(destination.rpc, 'destination.diskWriters', { paths, except: { pid, startTime } }, { signal });
  const [looks, writers] = await Promise.all([lookAt({ source, destination }, plan.images, signal), asked]);
  const { restorable } = plan;
  const unreadable = looks.filter(({ there, verdict }) => verdict === 'unreadable' && restorable.includes(there));
  return {
    findings: [
      ...plan.images.flatMap((pair) =>
        judge(
          pair,
          looks.filter((look) => look.pair === pair),
        ),
      ),
      ...owned.flatMap(({ there }, index) => (writers[index] ?? []).map((writer) => inUse(there.path, writer))),
    ],
    unreadable: unreadable.map(({ there }) => restorable.indexOf(there)),
  };
}

type Hosts = Pick<Prepared, 'source' | 'destination'>;

async function lookAt(hosts: Hosts, pairs: readonly ImagePair[], signal?: AbortSignal): Promise<Look[]> {
  const views = pairs.flatMap(viewsOf);
  let samples = await sample(
    hosts,
    views.map((view) => ({ ...view, differing: undefined })),
    signal,
  );
  let looks = await compare(
    hosts,
    views.map((view, index) => ({ ...view, samples: samples[index] ?? null })),
    signal,
  );
  for (let again = 0; again < looksAgain; again++) {
    const doubtful = looks.filter(({ verdict, differing }) => verdict === 'different' && differing.length > 0);
    if (doubtful.length === 0) break;
    samples = await sample(hosts, doubtful, signal);
    const still = doubtful.map((look, index) => withoutWritten(look, samples[index] ?? null));
    const isLast = again === looksAgain - 1;
    const settled = isLast ? still : await compare(hosts, still, signal);
    looks = looks.map((look) => {
      const index = doubtful.indexOf(look);
      if (index === -1) return look;
      const one = settled[index]!;
      if (one.samples?.samples.length)
        return { ...one, verdict: isLast ? 'different' : one.verdict, compared: look.compared };
      return { ...look, verdict: look.compared > look.differing.length ? 'same' : 'unproven', differing: [] };
    });
  }
  return looks;
}

/** Keeps of what differs the blocks that are on the source as they were before the destination looked. */
function withoutWritten(look: Look, now: DiskSamples | null): Look {
  const before = new Map(look.samples?.samples.map(({ offsetBytes, digest }) => [offsetBytes, digest]));
  const samples = now?.samples.filter(({ offsetBytes, digest }) => before.get(offsetBytes) === digest) ?? [];
  return { ...look, samples: now === null ? null : { ...now, samples } };
}

function viewsOf(pair: ImagePair): View[] {
  const { here, there } = pair;
  const asGuest = isRestorable(pair) ? [{ pair, here, there, mayGrow: false }] : [];
  if (here.format === 'raw' || !here.path.startsWith('/') || !there.path.startsWith('/')) return asGuest;
  const file = ({ path }: DiskImage) => ({ path, format: 'raw' });
  return [...asGuest, { pair, here: file(here), there: file(there), mayGrow: true }];
}

async function sample(
  { source }: Hosts,
  views: readonly (Pick<View, 'here'> & { readonly differing: readonly number[] | undefined })[],
  signal?: AbortSignal,
): Promise<readonly (DiskSamples | null)[]> {
  const images = views.map(({ here: image, differing }) =>
    differing === undefined ? { image } : { image, offsets: [...differing] },
  );
  return await call(source.rpc, 'source.sampleDisks', { images }, { signal });
}

async function compare(
  { destination }: Hosts,
  views: readonly (View & { readonly samples: DiskSamples | null })[],
  signal?: AbortSignal,
): Promise<Look[]> {
  const images = views.map(({ there: image, samples, mayGrow }) => ({
    image,
    samples: samples === null ? null : { ...samples, samples: [...samples.samples] },
    mayGrow,
  }));
  const found = await call(destination.rpc, 'destination.compareDisks', { images }, { signal });
  return views.map((view, index) => ({ ...view, ...found[index]! }));
}

/** What the guest reads counts for more than the file. Of images that are missing, preflight speaks elsewhere. */
function judge({ there, device }: ImagePair, looks: readonly Look[]): Finding[] {
  const told = looks.find(({ verdict }) => verdict === 'same' || verdict === 'different');
  if (told?.verdict === 'different')
    return [
      {
        severity: 'refuse',
        code: 'VMMIG_DISK_DIFFERENT',
        message: `what ${there.path} holds on the destination is not the guest's disk`,
        remedy: 'share or replicate the right image, or name its path there in the inventory',
      },
    ];
  // Of files their inodes are compared as well.
  const isOpen = looks.some(({ verdict }) => verdict === 'unproven');
  if (told !== undefined || !isOpen || device.imageInode !== null) return [];
  return [
    {
      severity: 'warn',
      code: 'VMMIG_DISK_IMAGE',
      message: `whether ${there.path} is the guest's disk on the destination, too, could not be told from what is in it`,
      remedy: 'make sure that it is: the guest is going to run on it',
    },
  ];
}

function inUse(path: string, writer: string): Finding {
  return {
    severity: 'refuse',
    code: 'VMMIG_DISK_IN_USE',
    message: `${writer} has ${path} open on the destination, and may write to it`,
    remedy: 'end it, or see which of the two is to have the disk',
  };
}
