/** The middle one of several measurements: a single one says more about what else the machine was doing. */
export function median(values: readonly number[]): number {
  return values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)]!;
}
