import { defineVerb } from '../verb.js';

export const labSsh = defineVerb({
  command: 'ssh <host>',
  describe: 'A shell on a host of the lab, or one command after --',
  positionals: { host: { demandOption: true, choices: ['hostA', 'hostB'], describe: 'Which host' } },
  examples: [
    ['lab ssh hostA', 'Look around on hostA'],
    ['lab ssh hostB -- ls -l /proc/self/ns', 'Run one command on hostB'],
  ],
  epilogue: 'Exits as the command did.',
  run: async (args, context) => (await context.lab()).labExec(args.host, args.rest),
});
