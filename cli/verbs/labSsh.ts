import { defineVerb } from '../verb.js';

export const labSsh = defineVerb({
  command: 'ssh <host>',
  describe: 'A shell on a host of the lab, or one command after --',
  positionals: { host: { choices: ['hostA', 'hostB'], demandOption: true, describe: 'Which host' } },
  examples: [
    ['lab ssh hostA', 'Look around on hostA'],
    ['lab ssh hostB -- ip address', 'Run one command on hostB'],
  ],
  epilogue: 'Exits as the command did.',
  async run(args, context) {
    const lab = await context.lab();
    const [command = 'bash', ...rest] = args.rest;
    // Ctrl-C is for the command, which has the terminal.
    const leaveToCommand = (): void => {};
    process.on('SIGINT', leaveToCommand);
    try {
      const ended = await lab.labExec(args.host, [command, ...rest], {
        stdin: 'inherit',
        stdout: 'inherit',
        stderr: 'inherit',
        reject: false,
      });
      if (ended.exitCode === undefined && ended.signal === undefined) throw ended;
      return ended.exitCode ?? 128;
    } finally {
      process.off('SIGINT', leaveToCommand);
    }
  },
});
