/** The guest page size that cache maps are in: QEMU's target page on x86. */
export const PAGE_BYTES = 4096;
