import { asApiError, type ApiError, type ErrorCode } from '../api/error';
import { m } from '../i18n/texts/messages';
import { language } from './language';

const TEXTS: Readonly<Partial<Record<ErrorCode, () => string>>> = {
  UNREACHABLE: m.error_unreachable,
  UNREADABLE: m.error_unreadable,
  WRONG_LOGIN: m.error_wrong_login,
  UNAUTHENTICATED: m.error_unauthenticated,
  FORBIDDEN: m.error_forbidden,
  NOT_FOUND: m.error_not_found,
  ALREADY_EXISTS: m.error_already_exists,
  LOCKED: m.error_locked,
  CONFLICT: m.error_conflict,
  INVALID: m.error_invalid,
  RATE_LIMITED: m.error_rate_limited,
  HOST_ERROR: m.error_host,
  HOST_UNREACHABLE: m.error_host_unreachable,
  TOO_SLOW: m.error_too_slow,
  DATABASE_UNAVAILABLE: m.error_database,
  OUTCOME_UNKNOWN: m.error_outcome_unknown,
  RESOURCE_UNAVAILABLE: m.error_resources,
};

export interface ErrorText {
  text: string;
  /** The service's own words, which are English, where `text` is a translation of what kind of error it is. */
  original: string | null;
}

export function errorText(thrown: unknown): ErrorText {
  const error = asApiError(thrown);
  const general = (TEXTS[error.code] ?? m.error_internal)();
  if (isOurs(error)) return { text: general, original: null };
  return language() === 'en' ? { text: error.message, original: null } : { text: general, original: error.message };
}

/** Errors that the service has no better words for. */
function isOurs({ code }: ApiError): boolean {
  return code === 'UNREACHABLE' || code === 'UNREADABLE' || code === 'WRONG_LOGIN';
}
