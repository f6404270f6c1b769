export function labStatusLines(status: unknown, _style: unknown): string[] {
  return [JSON.stringify(status)];
}
