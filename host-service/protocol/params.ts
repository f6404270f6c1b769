/** The methods of `vmmig host-service` and what they are asked with, checked before use. */
import * as z from 'zod';
import type { DestinationPlan, DomainPlan } from '../../hypervisor/index.js';

const domainAddressSchema = z.object({ uri: z.string(), domain: z.string().min(1) });

const guestSchema = z.object({
  name: z.string(),
  qmpPath: z.string(),
  agentPath: z.string().nullable(),
  /** Of a guest that libvirt manages: its daemon, as that host calls it, and the domain's name there. */
  libvirt: domainAddressSchema.optional(),
});
export type GuestAddress = z.infer<typeof guestSchema>;

/** What a switch needs beyond a teleport. */
const switchingSchema = z.object({
  /** Null: a share of the memory that is free. */
  pageStoreLimitBytes: z.number().int().positive().nullable(),
  /** Where what exceeds the page store's limit may go: a directory; null: nowhere. */
  spillDir: z.string().nullable(),
  reconnectTimeoutMs: z.number().positive(),
  /** A QEMU that has stopped the guest before `source.allowDowntime` waits for it: the guest may have to stay. */
  awaitsPermission: z.boolean(),
  /** QEMU must not stop the guest before `source.allowDowntime`, however little is left. */
  holdsBack: z.boolean(),
  /** Of what the guest has used lately, that goes before the rest of its memory. */
  prefetchShare: z.number().min(0).max(1),
});
export type Switching = z.infer<typeof switchingSchema>;

/** An image as a host finds it. */
const imageSchema = z.object({ path: z.string(), format: z.string(), keyFile: z.string().optional() });
const samplesSchema = z.object({
  lengthBytes: z.number(),
  samples: z.array(z.object({ offsetBytes: z.number(), lengthBytes: z.number(), digest: z.string().nullable() })),
});

/** Becomes part of paths that are removed: nothing that leads elsewhere. */
const migrationId = z.string().regex(/^[\w-]+$/);
/** Names the directory that a migration has on a host while it goes on. */
const directorySchema = z.object({ migrationId, runDir: z.string().startsWith('/') });
/** What a service that has no part in a migration finds it by. */
const migrationSchema = z.object({ ...directorySchema.shape, guest: guestSchema });
const endpointSchema = z.object({ host: z.string(), port: z.number().int() });
/** The way to the destination's daemon. */
const tunnelSchema = endpointSchema.extend({ opensAsUsual: z.boolean() });
export type Tunnel = z.infer<typeof tunnelSchema>;
/** What libvirt is to do; in virsh's terms. */
const domainDepartureSchema = z.object({
  /** Where the destination's service leads to its daemon; else there is a URI. */
  tunnel: tunnelSchema.nullable(),
  destinationUri: z.string().nullable(),
  persistent: z.boolean(),
  undefineSource: z.boolean(),
  destinationName: z.string().nullable(),
  xml: z.string().nullable(),
  unsafe: z.boolean(),
  autoConverge: z.boolean(),
});
export type DomainDepartureParams = z.infer<typeof domainDepartureSchema>;
/** Whom a migration is about: what each host notes of it. */
const partySchema = z.object({
  guest: guestSchema,
  /** The other host, as the caller calls it, and its run directory. */
  peer: z.object({ host: z.string(), runDir: z.string() }),
});
/** 32 bytes. */
const credentialsSchema = z.object({ migrationId, key: z.base64().length(44) });

/** Parameters of every method, checked before use. */
export const methodParams = {
  'host.clock': z.object({}),
  'host.checks': z.object({}),
  /** Names of all that libvirt knows; none where there is no libvirt. */
  'host.domains': z.object({}),
  /** `noAgent`: the guest's agent is not to be looked for. */
  'guest.probe': z.object({ ...guestSchema.shape, noAgent: z.boolean().optional() }),
  'source.inspect': z.object({ ...guestSchema.shape, noAgent: z.boolean().optional() }),
  /** Looks at what vmmig itself needs there. */
  'source.check': z.object({ runDir: z.string().startsWith('/') }),
  'source.scan': z.object({ mode: z.enum(['full', 'changes']) }),
  /** Digests of some blocks of the guest's disks. `offsets`: of which; else they are chosen. */
  'source.sampleDisks': z.object({
    images: z.array(z.object({ image: imageSchema, offsets: z.array(z.number()).optional() })),
  }),
  'source.listen': z.object({
    ...directorySchema.shape,
    ...partySchema.shape,
    ...credentialsSchema.shape,
    connections: z.number().int().min(1).max(16),
    bandwidthBps: z.number().positive().nullable(),
    compress: z.boolean(),
    /** So long a relay looks for the other while the guest is the source's; 0: not at all. */
    reconnectTimeoutMs: z.number().nonnegative(),
    /** For each disk of the agent: its index in the destination's list, or -1. */
    diskIndexes: z.array(z.number().int()),
    /** Null for a teleport. */
    switching: switchingSchema.nullable(),
    /** Of a switch: whether to find out what the guest uses, though that may slow it down. */
    watchesUse: z.boolean(),
    /** So long QEMU does not send, and its stream is not read, for an agent that has not answered. */
    agentPatienceMs: z.number().int().nonnegative(),
  }),
  /** Of the destination's list: those that it cannot read. Their pages are sent. */
  'source.skipDisks': z.object({ indexes: z.array(z.number().int()) }),
  /** Where the destination's relay listens. `peerBootId`: as `destination.listen` has told it. */
  'source.connect': z.object({
    ...endpointSchema.shape,
    peerBootId: z.string(),
  }),
  'source.start': z.object({
    /** The guest may be slowed down, should `source.throttle` ask for it. */
    mayThrottle: z.boolean(),
    domain: domainDepartureSchema.optional(),
  }),
  /** A QEMU that was held back goes on, as the link takes it. */
  'source.keepUp': z.object({}),
  'source.throttle': z.object({}),
  'source.switchOver': z.object({}),
  'source.finished': z.object({}),
  /** Of a teleport: the guest may go from here on. */
  'source.hold': z.object({}),
  /** To the source's side of the commit point, in whatever service it is. */
  'source.post': z.object({
    ...directorySchema.shape,
    guest: guestSchema,
    event: z.enum(['abandon', 'release', 'resume']),
  }),
  /** `bootId`: of the host when the migration began, where that is known. */
  'destination.ask': z.object({ ...migrationSchema.shape, bootId: z.string().nullable() }),
  /**
   * Of a teleport: the source has let go of the guest, and nobody will ask any more. Of a switch: it has lost what it had of
   * the guest, whose end is waited for where nobody else does.
   */
  'destination.conclude': migrationSchema,
  /**
   * Takes the place of a service that died after the guest had begun to run there. `isSourceNew`: one that is alive there
   * waits for another source.
   */
  'destination.takeOver': z.object({ ...migrationSchema.shape, isSourceNew: z.boolean() }),
  /** Takes the place of a service that died after the guest had gone, whose memory is kept in files. */
  'source.takeOver': migrationSchema,
  /** Where the relay waits that has taken over; null: the destination needs nothing any more. */
  'source.reconnect': z.object({
    ...directorySchema.shape,
    endpoint: endpointSchema.nullable(),
  }),
  /** The migrations that a host takes part in, and what their services say of themselves. */
  'host.migrations': z.object({ runDir: z.string().startsWith('/') }),
  /** As the policy derived it: its parts are looked at, none of them is carried out. */
  'destination.check': z.custom<DestinationPlan>((plan) => typeof plan === 'object' && plan !== null),
  /** Whether images here hold the same. `samples`: null to see only whether it can be read. */
  'destination.compareDisks': z.object({
    images: z.array(z.object({ image: imageSchema, samples: samplesSchema.nullable(), mayGrow: z.boolean() })),
  }),
  /** Who writes to images here. `except`: a process that may. */
  'destination.diskWriters': z.object({
    paths: z.array(z.string()),
    except: z.object({ pid: z.number().int(), startTime: z.number() }).nullable(),
  }),
  'destination.checkDomain': z.custom<DomainPlan>((plan) => typeof plan === 'object' && plan !== null),
  'destination.start': z.object({
    ...directorySchema.shape,
    stateDir: z.string(),
    vm: z.string(),
    argv: z.array(z.string()),
    cwd: z.string(),
    qmpPath: z.string(),
    disks: z.array(imageSchema),
    /** QEMU is to be able to run the guest before it has all its memory. */
    postcopy: z.boolean(),
  }),
  'destination.listen': z.object({
    ...directorySchema.shape,
    ...partySchema.shape,
    ...credentialsSchema.shape,
    ports: z.tuple([z.number().int(), z.number().int()]).nullable(),
    reconnectTimeoutMs: z.number().nonnegative(),
    switching: switchingSchema.nullable(),
    /** As whom the domain's own label has QEMU run; null where that is left to the host. */
    domainUser: z.string().nullable(),
  }),
  /** Readies the host for a domain that libvirt is going to bring. */
  'destination.expect': z.object({
    ...directorySchema.shape,
    vm: z.string(),
    libvirt: domainAddressSchema,
    disks: z.array(imageSchema),
    /** In bytes, of the RAM blocks that do not lie in small pages. */
    pageSizes: z.record(z.string(), z.number().int().positive()),
  }),
  /** Resolves when the guest runs on the destination. */
  'source.switched': z.object({}),
  'destination.switched': z.object({}),
  /** Resolves when the source host holds nothing of the guest any more, also when another service is at work on it. */
  'source.pulled': migrationSchema,
  'destination.pulled': migrationSchema,
  /** Permits the switch, and sets the downtime, in milliseconds at memory speed, at which QEMU stops the guest. */
  'source.allowDowntime': z.object({ downtimeLimitMs: z.number().int().positive() }),
  'destination.finished': z.object({}),
  'destination.commit': z.object({}),
} as const;

export type Method = keyof typeof methodParams;
export type Params<M extends Method> = z.infer<(typeof methodParams)[M]>;
