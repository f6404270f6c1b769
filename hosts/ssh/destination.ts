/** SSH destinations as operators write them: `[user@]host[:port]`, `[user@][2001:db8::1]:port`, `ssh://…`. */

export interface SshDestination {
  user?: string;
  /** A host name, an address, or an alias that ssh_config knows. */
  host: string;
  port?: number;
}

/** Undefined when `text` is no destination. Like OpenSSH, nothing may begin with `-` (it could become an option). */
export function parseDestination(text: string): SshDestination | undefined {
  const match =
    /^(?:ssh:\/\/)?(?:(?<user>[^@\s/][^\s/]*)@)?(?:\[(?<v6>[0-9A-Fa-f:.%\w]+)\]|(?<host>[^\s@/:[\]]+)|(?<bare>[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*))(?::(?<port>\d{1,5}))?\/?$/.exec(
      text,
    );
  const { user, v6, host, bare, port } = match?.groups ?? {};
  const name = v6 ?? host ?? bare;
  if (name === undefined || name.startsWith('-') || user?.startsWith('-')) return undefined;
  const portNumber = port === undefined ? undefined : Number(port);
  if (portNumber !== undefined && (portNumber < 1 || portNumber > 65_535)) return undefined;
  return {
    host: name,
    ...(user !== undefined && { user }),
    ...(portNumber !== undefined && { port: portNumber }),
  };
}
