import { defineConfig } from 'vitest/config';

const soak = ['test/soak/**/*.test.ts'];

/** What uses the lab, or measures a guest closely. `npm test` runs the rest beside it; `npx vitest run` runs all in turn. */
const guests = ['acceptance/**/*', 'lab/**/*', 'guest-agent/session', 'host-service/service'].map(
  (name) => `test/${name}.test.ts`,
);

/** One file of each at a time: guests that move at the same time would measure each other. */
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
