import { defineConfig } from 'vitest/config';

/** What starts no guests: `npm test` runs it beside what does, `npx vitest run` all in turn. */
const parts = ['cli', 'disk', 'fuzz', 'host-service/commit', 'hosts', 'migrate', 'relay/link', 'relay/store'].map(
  (folder) => `test/${folder}/**/*.test.ts`,
);

const soak = ['test/soak/**/*.test.ts'];

/** One file at a time: guests that boot at the same time would measure each other. */
export default defineConfig({
  test: {
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 120_000,
    projects: [
      { extends: true, test: { name: 'guests', include: ['test/**/*.test.ts'], exclude: [...parts, ...soak] } },
      { extends: true, test: { name: 'parts', include: parts } },
      ...(process.env.VMMIG_SOAK ? [{ extends: true as const, test: { name: 'soak', include: soak } }] : []),
    ],
  },
});
