/** Runs the command line as a process of its own, from source. */
import { fileURLToPath } from 'node:url';
import { execa, type Options } from 'execa';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const mainPath = fileURLToPath(new URL('../../../cli/main.ts', import.meta.url));
const scriptedPath = fileURLToPath(new URL('./scriptedMain.ts', import.meta.url));

const common = { reject: false, cwd: root, stdin: 'ignore', stripFinalNewline: false } as const;

/** The command line as it is. */
export function vmmig(args: readonly string[], env: Record<string, string> = {}) {
  return execa(process.execPath, ['--import', 'tsx', mainPath, ...args], { ...common, env });
}

/** The command line with scripted migrations: see scriptedMain.ts. */
export function scriptedVmmig(
  script: string,
  args: readonly string[],
  options: Options & { env?: Record<string, string> } = {},
) {
  return execa(process.execPath, ['--import', 'tsx', scriptedPath, ...args], {
    ...common,
    env: { ...options.env, SCRIPT: script },
  });
}
