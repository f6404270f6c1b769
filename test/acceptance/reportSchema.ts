/** The report as docs promise it to scripts: every field there, of the right kind, and no other. */
import * as z from 'zod';
import { phaseNames } from '../../migrate/report.js';

const count = z.number().int().nonnegative();
const milliseconds = z.number().int().nonnegative();
const latency = z.strictObject({
  count,
  p50Ms: z.number().nonnegative(),
  p90Ms: z.number().nonnegative(),
  p99Ms: z.number().nonnegative(),
  maxMs: z.number().nonnegative(),
});

export const reportDocument = z.strictObject({
  schema: z.literal('vmmig.report/1'),
  id: z.string().regex(/^\d{8}-\d{6}-[0-9a-f]{6}$/),
  vm: z.string().min(1),
  from: z.string().min(1),
  to: z.string().min(1),
  mode: z.enum(['teleport', 'switch']),
  result: z.enum(['moved', 'failed', 'cancelled', 'refused', 'interrupted', 'unknown']),
  vmLocation: z.enum(['source', 'destination', 'unknown']),
  error: z
    .strictObject({
      code: z.string().regex(/^VMMIG_[A-Z_]+$/),
      message: z.string().min(1),
      phase: z.enum(phaseNames).nullable(),
      retryable: z.boolean(),
    })
    .nullable(),
  startedAt: z.iso.datetime(),
  totalMs: milliseconds,
  downtimeMs: milliseconds,
  switchoverMs: milliseconds,
  releasedMs: milliseconds,
  exposureMs: milliseconds.nullable(),
  capture: z.enum(['stream', 'memory file']).nullable(),
  recoveredAt: z.iso.datetime().nullable(),
  phases: z.array(z.strictObject({ name: z.enum(phaseNames), startMs: milliseconds, ms: milliseconds })),
  bytes: z.strictObject({ wire: count, stream: count, restored: count }),
  pages: z.strictObject({
    seen: count,
    zero: count,
    teleported: count,
    sent: count,
    mismatched: count,
    faulted: count,
  }),
  agent: z
    .strictObject({
      scanMs: milliseconds,
      pages: count,
      scans: count,
      skipped: z.record(z.string(), count),
      via: z.enum(['port', 'qemu-ga']),
    })
    .nullable(),
  link: z.strictObject({ connections: count, rttMs: z.number().nonnegative(), reconnects: count }),
  faults: z
    .strictObject({
      ...latency.shape,
      perSecond: z.number().nonnegative(),
      waiting: count,
      answers: z.strictObject({ zero: latency, local: latency, remote: latency }),
    })
    .nullable(),
  verified: z.boolean().nullable(),
  findings: z.array(
    z.strictObject({
      severity: z.enum(['refuse', 'warn']),
      code: z.string().regex(/^VMMIG_[A-Z_]+$/),
      message: z.string().min(1),
      remedy: z.string(),
    }),
  ),
  opaqueSections: z.array(z.string()),
});
