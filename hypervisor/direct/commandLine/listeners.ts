/** Where a QEMU of a command line will listen. */
import { characterDeviceOf } from './characterDevices.js';
import { type CommandLineOption, lastValue, parseArgument } from './options.js';

export type Listener =
  | { readonly kind: 'unix'; readonly path: string; readonly option: string }
  | { readonly kind: 'tcp'; readonly port: number; readonly option: string };

const FIRST_VNC_PORT = 5900;
/** `-s` is short for this port of `-gdb`. */
const GDB_PORT = 1234;
const NETWORK_OPTIONS = new Set(['netdev', 'nic', 'net']);

export function listenersOf(options: readonly CommandLineOption[]): Listener[] {
  return options.flatMap((option): Listener[] => {
    const name = `-${option.name}`;
    const device = characterDeviceOf(option);
    if (device?.kind === 'unix' && device.server) return [{ kind: 'unix', path: device.path, option: name }];
    // A debugger's port is a server without saying so.
    if (device?.kind === 'tcp' && (device.server || option.name === 'gdb')) {
      return [{ kind: 'tcp', port: device.port, option: name }];
    }
    return portsOf(option).map((port) => ({ kind: 'tcp', port, option: name }));
  });
}

function portsOf({ name, argument }: CommandLineOption): number[] {
  if (name === 's') return [GDB_PORT];
  if (argument === null || name === null) return [];
  const parts = parseArgument(argument);
  if (name === 'vnc') {
    const display = /^[^:]*:(\d+)$/.exec(parts.implied ?? '')?.[1];
    const isServer = lastValue(parts, 'reverse') === undefined && !parts.implied?.startsWith('unix:');
    return display !== undefined && isServer ? [FIRST_VNC_PORT + Number(display)] : [];
  }
  if (name === 'spice') return numbers([lastValue(parts, 'port'), lastValue(parts, 'tls-port')]);
  if (!NETWORK_OPTIONS.has(name)) return [];
  // hostfwd=tcp:HOSTADDRESS:HOSTPORT-GUESTADDRESS:GUESTPORT
  const forwards = parts.entries.filter(([key]) => /^hostfwd(\.\d+(\.str)?)?$/.test(key));
  return numbers(forwards.map(([, forward]) => /^(?:tcp)?:[^:]*:(\d+)-/.exec(forward)?.[1]));
}

const numbers = (texts: readonly (string | undefined)[]): number[] => texts.map(Number).filter((number) => number > 0);
