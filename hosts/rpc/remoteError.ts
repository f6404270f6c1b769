/** Errors across the wire: what a handler threw on one end is what the caller's request rejects with on the other. */
import { ResponseError } from 'vscode-jsonrpc/node';

/** A request failed on the host. Its `code` and fields are those of the error that was thrown there. */
export class RemoteError extends Error {
  override readonly name = 'RemoteError';
  /** The error's `code` there, `VMMIG_…` for our own; `VMMIG_REMOTE_ERROR` when it had none. */
  readonly code: string;
  readonly host: string;
  /** The error's other fields there (`phase`, `retryable`, …), and `cause` as `{ name, code, message }`. */
  readonly data: Readonly<Record<string, unknown>>;

  constructor(host: string, code: string, message: string, data: Readonly<Record<string, unknown>>) {
    super(message);
    this.host = host;
    this.code = code;
    this.data = data;
  }

  get retryable(): boolean {
    return this.data.retryable === true;
  }
}

/** JSON-RPC wants a number; the one from the error is in its data. The range -32000… is the implementation's. */
const SERVER_ERROR = -32_000;

export function toResponseError(error: unknown): ResponseError<Record<string, unknown>> {
  return new ResponseError(SERVER_ERROR, error instanceof Error ? error.message : String(error), describe(error, 0));
}

export function fromResponseError(host: string, error: ResponseError<unknown>): RemoteError {
  const { code, message: _, ...data } = isRecord(error.data) ? error.data : {};
  return new RemoteError(host, typeof code === 'string' ? code : 'VMMIG_REMOTE_ERROR', error.message, data);
}

/** Causes further down than this say nothing that the ones above do not. */
const MAX_CAUSES = 4;

function describe(error: unknown, depth: number): Record<string, unknown> {
  if (!(error instanceof Error)) return { message: String(error) };
  const fields: Record<string, unknown> = { name: error.name, message: error.message };
  for (const [key, value] of Object.entries(error)) {
    if (isJson(value)) fields[key] = value;
  }
  if (error.cause !== undefined && depth < MAX_CAUSES) fields.cause = describe(error.cause, depth + 1);
  return fields;
}

function isJson(value: unknown): boolean {
  if (value === undefined || typeof value === 'function' || value instanceof Error) return false;
  try {
    return JSON.stringify(value) !== undefined;
  } catch {
    return false;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
