/** What is wrong with an inventory file, and on which line. */

export interface InventoryIssue {
  /** 1-based; 0 when it concerns the file as a whole. */
  line: number;
  /** As in `hosts.hostA.linkPorts`; empty when it concerns the file as a whole. */
  field: string;
  message: string;
}

export class InventoryError extends Error {
  override readonly name = 'InventoryError';
  readonly code: 'VMMIG_INVENTORY_INVALID' | 'VMMIG_INVENTORY_NOT_FOUND';
  readonly path: string;
  /** All that is wrong, in the file's order, not only the first. */
  readonly issues: readonly InventoryIssue[];

  constructor(
    code: InventoryError['code'],
    path: string,
    issues: readonly InventoryIssue[],
    options?: { cause?: unknown },
  ) {
    super(issues.map((issue) => describe(path, issue)).join('\n'), options);
    this.code = code;
    this.path = path;
    this.issues = issues;
  }
}

function describe(path: string, { line, field, message }: InventoryIssue): string {
  return `${path}${line > 0 ? `:${line}` : ''}: ${field === '' ? '' : `${field}: `}${message}`;
}
