import { defineConfig } from 'vitest/config';

/** What boots guests, or measures: two of these at the same time would measure each other. */
const guests = [
  'acceptance/**/*',
  'lab/**/*',
  'guest-agent/{files,layouts,metadata,session}',
  'guest-agent/qga/guest',
  'pager/realQemu',
  'relay/{holdBack,sourceTakeover,switch,switchFile,takeover}',
  'relay/postcopy/realQemu',
].map((path) => `test/${path}.test.ts`);

const soak = ['test/soak/**/*.test.ts'];

/** One file at a time. `npm test` runs the parts, which are all else, beside the guests, `npx vitest run` all in turn. */
export default defineConfig({
  test: {
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 120_000,
    projects: [
      { extends: true, test: { name: 'guests', include: guests } },
      { extends: true, test: { name: 'parts', include: ['test/**/*.test.ts'], exclude: [...guests, ...soak] } },
      ...(process.env.VMMIG_SOAK ? [{ extends: true as const, test: { name: 'soak', include: soak } }] : []),
    ],
  },
});
