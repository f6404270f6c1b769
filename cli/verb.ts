/**
 * What a verb is. The table of verbs (`verbs/index.ts`) is the single source of parsing, help and completion.
 */
import type { InferredOptionType, Options } from 'yargs';
import type { Output } from './output.js';
import type { Lab, Policy } from './policy.js';

/** What a value names, for completion. */
export type ValueHint = 'guest' | 'host' | 'file';

/** A yargs option, and what its value names. */
export interface VerbOption extends Options {
  readonly complete?: ValueHint;
}
export type VerbOptions = Readonly<Record<string, VerbOption>>;

/** What a verb is given to do its work with. */
export interface VerbContext {
  readonly output: Output;
  readonly env: NodeJS.ProcessEnv;
  /** `migrate/`, loaded when first asked for: `--help` must not wait for SSH and codecs to load. */
  policy(): Promise<Policy>;
  lab(): Promise<Lab>;
}

export interface VerbArguments {
  /** What came after `--`. */
  readonly rest: readonly string[];
  readonly json: boolean;
  readonly inventory: string | undefined;
}

type CamelCase<S extends string> = S extends `${infer Head}-${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : S;

type Typed<O extends VerbOptions> = { readonly [K in keyof O & string as CamelCase<K>]: InferredOptionType<O[K]> };

type Arguments<P extends VerbOptions, O extends VerbOptions> = VerbArguments & Typed<P> & Typed<O>;

type None = Record<never, VerbOption>;

interface Definition<P extends VerbOptions, O extends VerbOptions> {
  /** As yargs wants it: `teleport <vm>`. */
  readonly command: string;
  /** One line; `false` hides the verb. */
  readonly describe: string | false;
  readonly positionals?: P;
  readonly options?: O;
  readonly examples?: readonly (readonly [command: string, explanation: string])[];
  /** Shown below the options. */
  readonly epilogue?: string;
  /** Does the work and gives the exit code. */
  run(args: Arguments<P, O>, context: VerbContext): Promise<number>;
}

export interface Verb {
  readonly kind: 'verb';
  readonly command: string;
  readonly name: string;
  readonly describe: string | false;
  readonly positionals: VerbOptions;
  readonly options: VerbOptions;
  readonly examples: readonly (readonly [command: string, explanation: string])[];
  readonly epilogue: string | null;
  run(args: VerbArguments & Readonly<Record<string, unknown>>, context: VerbContext): Promise<number>;
}

/** Verbs under a common word: `host add`, `host list`. */
export interface VerbGroup {
  readonly kind: 'group';
  readonly name: string;
  readonly describe: string;
  readonly verbs: readonly Verb[];
}

export type VerbTable = readonly (Verb | VerbGroup)[];

/** A verb whose `run` sees the types that its own option table implies. */
export function defineVerb<const P extends VerbOptions = None, const O extends VerbOptions = None>(
  definition: Definition<P, O>,
): Verb {
  return {
    kind: 'verb',
    command: definition.command,
    name: definition.command.split(' ')[0]!,
    describe: definition.describe,
    positionals: definition.positionals ?? {},
    options: definition.options ?? {},
    examples: definition.examples ?? [],
    epilogue: definition.epilogue ?? null,
    // yargs has checked the arguments against this very table, and offers no type that says so.
    run: (args, context) => definition.run(args as unknown as Arguments<P, O>, context),
  };
}

export function defineGroup(name: string, describe: string, verbs: readonly Verb[]): VerbGroup {
  return { kind: 'group', name, describe, verbs };
}
