/** Stretches of guest physical memory. */

export const pageBytes = 4096;

export interface GpaStretch {
  readonly gpa: number;
  readonly lengthBytes: number;
}

export function pageAt(gpa: number): GpaStretch {
  return { gpa, lengthBytes: pageBytes };
}

/** Guest physical addresses of their pages. */
export function pagesOf(stretches: readonly GpaStretch[]): number[] {
  return stretches.flatMap(({ gpa, lengthBytes }) =>
    Array.from({ length: Math.ceil(lengthBytes / pageBytes) }, (_, at) => gpa + at * pageBytes),
  );
}

/** The same pages, each once and by address. */
export function mergedPages(stretches: readonly GpaStretch[]): GpaStretch[] {
  const merged: { gpa: number; lengthBytes: number }[] = [];
  for (const gpa of [...new Set(pagesOf(stretches))].sort((left, right) => left - right)) {
    const last = merged.at(-1);
    if (last !== undefined && last.gpa + last.lengthBytes === gpa) last.lengthBytes += pageBytes;
    else merged.push({ gpa, lengthBytes: pageBytes });
  }
  return merged;
}
