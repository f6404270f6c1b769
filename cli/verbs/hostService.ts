import { defineVerb } from '../verb.js';

/** What vmmig starts over SSH on the other host: standard input and output are the conversation. */
export const hostService = defineVerb({
  command: 'host-service',
  describe: false,
  async run(_args, context) {
    await (await context.policy()).runHostService();
    return 0;
  },
});
