import type { components } from './schema';

/** The service's closed list, what only a browser can find out, and a refused sign-in, which is no ended one. */
export type ErrorCode = components['schemas']['Code'] | 'UNREACHABLE' | 'UNREADABLE' | 'WRONG_LOGIN';

/** A request that failed, in the form in which it is shown. */
export class ApiError extends Error {
  override readonly name = 'ApiError';

  constructor(
    message: string,
    readonly code: ErrorCode,
    /** 0 if there was no answer. */
    readonly status: number,
    readonly requestId: string | null = null,
    /** A message for each field that was refused. */
    readonly fields: Readonly<Record<string, string>> = {},
    /** The operation that holds what was to be changed. */
    readonly operationId: string | null = null,
    /** Seconds. */
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }

  /** Whether the same request may well succeed a little later. */
  get mayPass(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** Reads a failed answer. A proxy in between may have written it, in a form of its own. */
export async function errorOf(response: Response): Promise<ApiError> {
  const requestId = response.headers.get('X-Request-Id');
  const retryAfter = seconds(response.headers.get('Retry-After'));
  const body: unknown = await response.json().catch(() => null);
  if (!isRecord(body) || typeof body.error !== 'string' || typeof body.code !== 'string') {
    return new ApiError(`HTTP ${response.status}`, 'UNREADABLE', response.status, requestId, {}, null, retryAfter);
  }
  const details = isRecord(body.details) ? body.details : {};
  return new ApiError(
    body.error,
    body.code as ErrorCode,
    response.status,
    typeof body.requestId === 'string' ? body.requestId : requestId,
    texts(details.fields),
    typeof details.operationId === 'string' ? details.operationId : null,
    retryAfter,
  );
}

/** Anything that was thrown, as an error to show. */
export function asApiError(thrown: unknown): ApiError {
  if (thrown instanceof ApiError) return thrown;
  // fetch says nothing else about a connection that failed.
  if (thrown instanceof TypeError) return new ApiError(thrown.message, 'UNREACHABLE', 0);
  return new ApiError(String(thrown), 'UNREADABLE', 0);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function texts(value: unknown): Record<string, string> {
  if (!isRecord(value)) return {};
  return Object.fromEntries(
    Object.entries(value).filter((pair): pair is [string, string] => typeof pair[1] === 'string'),
  );
}

/** Only the form in seconds: a date would depend on this machine's clock. */
function seconds(header: string | null): number | null {
  return header !== null && /^\d+$/.test(header) ? Number(header) : null;
}
