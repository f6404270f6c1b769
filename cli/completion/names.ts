/** Names that only the inventory knows. */
export interface Names {
  readonly guests: readonly string[];
  readonly hosts: readonly string[];
}
