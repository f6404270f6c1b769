/** The character devices of a command line, in both spellings: `-chardev socket,…` and `-serial unix:…,server=on`. */
import { type CommandLineOption, isOn, lastValue, parseArgument } from './options.js';

export type CharacterDevice =
  | { readonly kind: 'unix'; readonly path: string; readonly server: boolean; readonly logPath: string | null }
  | {
      readonly kind: 'tcp';
      readonly host: string;
      readonly port: number;
      readonly server: boolean;
      readonly logPath: string | null;
    }
  /** A file or FIFO that QEMU creates or opens. */
  | { readonly kind: 'file' | 'device'; readonly path: string; readonly logPath: string | null }
  /** The terminal QEMU was started from. */
  | { readonly kind: 'stdio'; readonly logPath: string | null }
  | { readonly kind: 'other'; readonly logPath: string | null };

const LEGACY_OPTIONS = new Set([
  'serial',
  'parallel',
  'monitor',
  'qmp',
  'qmp-pretty',
  'debugcon',
  'gdb',
  'sclp',
  'virtioconsole',
]);
const DEVICE_BACKENDS = new Set(['serial', 'tty', 'parallel', 'parport']);

/** The character device that an option makes, or null when it makes none. */
export function characterDeviceOf({ name, argument }: CommandLineOption): CharacterDevice | null {
  if (argument === null || name === null) return null;
  if (name === 'chardev') return fromChardev(argument);
  return LEGACY_OPTIONS.has(name) ? fromLegacy(argument) : null;
}

function fromChardev(argument: string): CharacterDevice {
  const parts = parseArgument(argument);
  const backend = parts.implied ?? lastValue(parts, 'backend') ?? '';
  const path = lastValue(parts, 'path') ?? lastValue(parts, 'input-path') ?? null;
  const logPath = lastValue(parts, 'logfile') ?? null;
  const server = isOn(lastValue(parts, 'server'));
  if (backend === 'stdio') return { kind: 'stdio', logPath };
  if (backend === 'socket' && path !== null) return { kind: 'unix', path, server, logPath };
  const port = Number(lastValue(parts, 'port'));
  if (backend === 'socket' && port > 0)
    return { kind: 'tcp', host: lastValue(parts, 'host') ?? '', port, server, logPath };
  if (backend === 'file' && path !== null) return { kind: 'file', path, logPath };
  if (DEVICE_BACKENDS.has(backend) && path !== null) return { kind: 'device', path, logPath };
  return { kind: 'other', logPath };
}

/** `unix:PATH,server=on`, `tcp:HOST:PORT,server`, `telnet:…`, `websocket:…`, `file:PATH`, `mon:stdio`, `/dev/ttyS0`. */
function fromLegacy(argument: string): CharacterDevice {
  const parts = parseArgument(argument);
  const address = (parts.implied ?? '').replace(/^mon:/, '');
  const server = isOn(lastValue(parts, 'server'));
  const logPath = lastValue(parts, 'logfile') ?? null;
  if (address === 'stdio') return { kind: 'stdio', logPath };
  const [, scheme = '', rest = ''] = /^(unix|tcp|telnet|websocket|file):(.*)$/s.exec(address) ?? [];
  if (scheme === 'unix') return { kind: 'unix', path: rest, server, logPath };
  if (scheme === 'file') return { kind: 'file', path: rest, logPath };
  const [, host = '', port] = /^(.*):(\d+)$/.exec(rest) ?? [];
  if (port !== undefined) return { kind: 'tcp', host, port: Number(port), server, logPath };
  return address.startsWith('/dev/') ? { kind: 'device', path: address, logPath } : { kind: 'other', logPath };
}
