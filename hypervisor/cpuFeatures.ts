/** What a guest's processor can do, as QEMU has worked it out: words of CPUID, compared bit by bit. */
import * as z from 'zod';
import type { QmpMonitor } from './qmpMonitor.js';

const wordSchema = z.object({
  'cpuid-input-eax': z.number(),
  'cpuid-input-ecx': z.number().optional(),
  'cpuid-register': z.string(),
  features: z.number(),
});

/** One register of one leaf. */
export interface CpuFeatureWord {
  readonly leaf: number;
  readonly subleaf: number;
  readonly register: string;
  /** 32 bits. */
  readonly bits: number;
}

/**
 * The features of a processor that exists, what its host does not have left out.
 * @param qomPath - of the processor; its property `feature-words` is x86's
 * @returns none where QEMU does not tell
 */
export async function cpuFeatures(
  qmp: QmpMonitor,
  qomPath: string,
  signal?: AbortSignal,
): Promise<readonly CpuFeatureWord[]> {
  const told = await qmp.execute('qom-get', { path: qomPath, property: 'feature-words' }, { signal }).catch(() => []);
  signal?.throwIfAborted();
  const words = z.array(wordSchema).safeParse(told);
  if (!words.success) return [];
  return words.data.map((word) => ({
    leaf: word['cpuid-input-eax'],
    subleaf: word['cpuid-input-ecx'] ?? 0,
    register: word['cpuid-register'],
    bits: word.features,
  }));
}

/** Names of what `wanted` has and `present` has not; what has no name comes last. */
export function missingFeatures(wanted: readonly CpuFeatureWord[], present: readonly CpuFeatureWord[]): string[] {
  const here = new Map(present.map((word) => [keyOf(word), word.bits]));
  const missed = wanted.flatMap((word) => {
    const missing = word.bits & ~(here.get(keyOf(word)) ?? 0) & ~(topology.get(keyOf(word)) ?? 0);
    const bits = Array.from({ length: 32 }, (_, bit) => bit).filter((bit) => ((missing >>> bit) & 1) === 1);
    return bits.map((bit) => ({ word, bit, name: names.get(keyOf(word))?.split(' ')[bit] ?? '-' }));
  });
  const named = missed.filter(({ name }) => name !== '-').map(({ name }) => name);
  const others = missed.filter(({ name }) => name === '-');
  return [...named, ...others.map(({ word, bit }) => `bit ${bit} of CPUID ${keyOf(word)}`)];
}

function keyOf({ leaf, subleaf, register }: CpuFeatureWord): string {
  return `${leaf.toString(16)}.${subleaf} ${register}`;
}

/**
 * `ht` and `cmp-legacy`: that there is more than one virtual processor, which no host lacks. Newer versions of QEMU count
 * them among the features of a guest's processor, older ones and a machine with a single one do not.
 */
const topology: ReadonlyMap<string, number> = new Map([
  ['1.0 EDX', 1 << 28],
  ['80000001.0 ECX', 1 << 1],
]);

/** By bit, as QEMU calls them (Intel SDM, volume 2A, CPUID; AMD APM, volume 3, appendix E). */
const names: ReadonlyMap<string, string> = new Map([
  [
    '1.0 EDX',
    'fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - ds acpi mmx fxsr sse sse2 ss ht tm ia64 pbe',
  ],
  [
    '1.0 ECX',
    'pni pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid - fma cx16 xtpr pdcm - pcid dca sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave osxsave avx f16c rdrand hypervisor',
  ],
  [
    '7.0 EBX',
    'fsgsbase tsc-adjust sgx bmi1 hle avx2 fdp-excptn-only smep bmi2 erms invpcid rtm - zero-fcs-fds mpx - avx512f avx512dq rdseed adx smap avx512ifma pcommit clflushopt clwb intel-pt avx512pf avx512er avx512cd sha-ni avx512bw avx512vl',
  ],
  [
    '7.0 ECX',
    '- avx512vbmi umip pku ospke waitpkg avx512vbmi2 - gfni vaes vpclmulqdq avx512vnni avx512bitalg - avx512-vpopcntdq - la57 - - - - - rdpid - bus-lock-detect cldemote - movdiri movdir64b - sgxlc pks',
  ],
  [
    '7.0 EDX',
    '- - avx512-4vnniw avx512-4fmaps fsrm - - - avx512-vp2intersect - md-clear - - - serialize - tsx-ldtrk - - arch-lbr - - amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp flush-l1d arch-capabilities core-capability ssbd',
  ],
  [
    '7.1 EAX',
    '- - - - avx-vnni avx512-bf16 - cmpccxadd - - fzrm fsrs fsrc - - - - - - fred lkgs wrmsrns - amx-fp16 avx-ifma',
  ],
  ['d.1 EAX', 'xsaveopt xsavec xgetbv1 xsaves'],
  ['80000008.0 EBX', 'clzero - xsaveerptr - - - - - - wbnoinvd - - ibpb - ibrs amd-stibp'],
  [
    '80000001.0 EDX',
    '- - - - - - - - - - - syscall - - - - - - - - nx - mmxext - - fxsr-opt pdpe1gb rdtscp - lm 3dnowext 3dnow',
  ],
  [
    '80000001.0 ECX',
    'lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce - nodeid-msr - tbm topoext perfctr-core perfctr-nb',
  ],
]);
