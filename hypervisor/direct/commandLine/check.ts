/** What in a command line does not work on another host, or not without a terminal. */
import type { Finding } from '../../finding.js';
import { characterDeviceOf } from './characterDevices.js';
import { type CommandLineOption, isOn, lastValue, type OptionParts, parseArgument } from './options.js';

const DESCRIPTOR_KEYS = new Set(['fd', 'fds', 'vhostfd', 'vhostfds']);
const DESCRIPTOR_PATH = /^(\/dev\/fd\/|\/dev\/fdset\/|\/proc\/self\/fd\/)/;
/** `fd:7`, `fdset:2`: an inherited descriptor as an address. */
const DESCRIPTOR_ADDRESS = /^(fd|fdset):/;
const GRAPHICAL_DISPLAYS = new Set(['gtk', 'sdl', 'cocoa']);

/** Options whose argument is the guest's text. */
const FREE_TEXT = new Set(['append', 'name', 'fw_cfg', 'smbios', 'prom-env']);

const overridable = 'give the destination a command line of its own in the inventory';

export function checkOptions(options: readonly CommandLineOption[]): Finding[] {
  return options.flatMap((option) => {
    const { name, argument } = option;
    const refuse = (message: string, remedy = `change the option, or ${overridable}`): Finding[] => [
      {
        severity: 'refuse',
        code: 'VMMIG_COMMAND_LINE',
        message: `-${name}${argument === null ? '' : ` ${argument}`}: ${message}`,
        remedy,
      },
    ];
    if (name === 'snapshot') {
      return refuse(
        "the guest's writes are in temporary files that only the source has",
        'start the guest without -snapshot',
      );
    }
    if (name === 'readconfig') return refuse('what the file holds cannot be checked');
    if (name === 'curses' || isDisplay(option, new Set(['curses'])))
      return refuse('there is no terminal on the destination');
    if (name === 'add-fd' || passesDescriptor(option)) {
      return refuse('the destination does not inherit open descriptors', overridable);
    }
    return [...checkTerminal(option), ...checkDisplay(option), ...checkDriveSnapshot(option)];
  });
}

function passesDescriptor({ name, argument }: CommandLineOption): boolean {
  if (argument === null || (name !== null && FREE_TEXT.has(name))) return false;
  const parts = parseArgument(argument);
  const values = [parts.implied ?? '', ...parts.entries.map(([, value]) => value)];
  return (
    parts.entries.some(isDescriptor) ||
    values.some((value) => DESCRIPTOR_PATH.test(value) || DESCRIPTOR_ADDRESS.test(value))
  );
}

function isDescriptor([key, value]: OptionParts['entries'][number]): boolean {
  return DESCRIPTOR_KEYS.has(key.slice(key.lastIndexOf('.') + 1)) && value !== '' && value !== '-1';
}

function isDisplay({ name, argument }: CommandLineOption, kinds: ReadonlySet<string>): boolean {
  if (name !== 'display' || argument === null) return false;
  const parts = parseArgument(argument);
  return kinds.has(parts.implied ?? parts.entries.find(([key]) => key === 'type')?.[1] ?? '');
}

function checkTerminal(option: CommandLineOption): Finding[] {
  const usesTerminal = option.name === 'nographic' || characterDeviceOf(option)?.kind === 'stdio';
  if (!usesTerminal) return [];
  const message = `-${option.name} uses the terminal: on the destination its output goes to QEMU's log and nothing can be typed`;
  return [
    {
      severity: 'warn',
      code: 'VMMIG_COMMAND_LINE',
      message,
      remedy: 'use a socket (-serial unix:PATH,server=on,wait=off)',
    },
  ];
}

function checkDisplay(option: CommandLineOption): Finding[] {
  if (!isDisplay(option, GRAPHICAL_DISPLAYS)) return [];
  const message = `-display ${option.argument} needs a desktop on the destination`;
  return [{ severity: 'warn', code: 'VMMIG_COMMAND_LINE', message, remedy: 'use -display none or -vnc' }];
}

/** `-drive snapshot=on` is `-snapshot` for one disk. */
function checkDriveSnapshot({ name, argument }: CommandLineOption): Finding[] {
  if (name !== 'drive' || argument === null) return [];
  if (!isOn(lastValue(parseArgument(argument), 'snapshot'))) return [];
  const message = `-drive ${argument}: the guest's writes are in a temporary file that only the source has`;
  return [{ severity: 'refuse', code: 'VMMIG_COMMAND_LINE', message, remedy: 'start the guest without snapshot=on' }];
}
