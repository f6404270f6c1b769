/** From yargs's complaints to sentences that say what is right. */
import { commonOptions } from './options.js';
import { nearest } from './suggest.js';
import { UsageError } from './usageError.js';
import { fullName, helpHint, type VerbPath } from './verbPath.js';

/** @param message what yargs says */
export function explain(message: string, path: VerbPath): UsageError {
  if (path.unknown !== null) return unknownVerb(path.unknown, path);
  const unknown = /^Unknown arguments?: (.*)$/.exec(message)?.[1]?.split(', ');
  if (unknown !== undefined) return unknownArguments([...new Set(unknown)], path);
  const missing = /^Missing required arguments?: (.*)$/.exec(message)?.[1];
  if (missing !== undefined) {
    const names = missing
      .split(', ')
      .map((name) => (Object.hasOwn(path.verb?.positionals ?? {}, name) ? `<${name}>` : `--${name}`));
    return new UsageError(`${names.join(' and ')} ${names.length > 1 ? 'are' : 'is'} missing`, helpHint(path));
  }
  const valueless = /^Not enough arguments following: (.*)$/.exec(message)?.[1];
  if (valueless !== undefined) return new UsageError(`--${valueless} needs a value`, helpHint(path));
  if (message.startsWith('Not enough non-option arguments') && path.verb !== null) {
    const wanted = path.verb.command
      .split(' ')
      .slice(1)
      .filter((part) => part.startsWith('<'));
    return new UsageError(`"${fullName(path)}" needs ${wanted.join(' ')}`, helpHint(path));
  }
  if (message.startsWith('Invalid values:')) return new UsageError(choicesText(message, path), helpHint(path));
  return new UsageError(message.replace(/\s*\n\s*/g, ' '), helpHint(path));
}

function unknownVerb(typed: string, path: VerbPath): UsageError {
  const names = path.verbs.filter((verb) => verb.kind === 'group' || verb.describe !== false).map((verb) => verb.name);
  const meant = nearest(typed, names);
  const prefix = path.group === null ? '' : `${path.group.name} `;
  return new UsageError(
    `there is no verb "${prefix}${typed}"`,
    meant === null
      ? `The verbs are ${names.map((name) => prefix + name).join(', ')}.`
      : `Did you mean "vmmig ${prefix}${meant}"?`,
  );
}

function unknownArguments(names: readonly string[], path: VerbPath): UsageError {
  const known = Object.keys({ ...commonOptions, ...path.verb?.options, help: null });
  // yargs reports `--max-downtme` also in camel case; an extra word is reported as it was typed.
  const typed = names.find((name) => !/[A-Z]/.test(name)) ?? names[0]!;
  const meant = nearest(typed, known);
  const where = `"vmmig ${fullName(path)}"`;
  // `teleport vm1 from hostA`: a word too many, however much it looks like an option.
  if (meant !== null && meant !== typed)
    return new UsageError(`${where} has no option "--${typed}"`, `Did you mean "--${meant}"?`);
  return new UsageError(`${where} does not understand "${typed}"`, helpHint(path));
}

/** yargs: `Invalid values:\n  Argument: progress, Given: "x", Choices: "auto", "tty"`. */
function choicesText(message: string, path: VerbPath): string {
  const match = /Argument: (.*?), Given: (.*?), Choices: (.*)/.exec(message);
  if (match === null) return message;
  const name = Object.hasOwn(path.verb?.positionals ?? {}, match[1]!) ? `<${match[1]}>` : `--${match[1]}`;
  return `${name}: ${match[2]} is none of ${match[3]}`;
}
