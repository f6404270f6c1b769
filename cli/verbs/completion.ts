import { completionScripts, shells } from '../completion/scripts.js';
import { defineVerb } from '../verb.js';

export const completion = defineVerb({
  command: 'completion <shell>',
  describe: 'Print the completion script of a shell',
  positionals: { shell: { demandOption: true, choices: shells, describe: 'The shell to complete in' } },
  examples: [
    ['completion bash > /etc/bash_completion.d/vmmig', 'bash, for everyone'],
    ['completion fish | source', 'fish, for this session'],
  ],
  async run(args, context) {
    context.output.stdout.write(completionScripts[args.shell]);
    return 0;
  },
});
