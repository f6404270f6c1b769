/** The guest's page, the unit of everything that is counted. */
export const pageBytes = 4096;

export function mebibytes(lengthBytes: number): string {
  return `${(lengthBytes / 2 ** 20).toFixed(lengthBytes < 100 * 2 ** 20 ? 1 : 0)} MiB`;
}
