import { defineConfig } from 'vitest/config';

/** One file at a time: tests start real guests, and two booting at once would measure each other. */
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
