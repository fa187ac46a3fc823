// Numbers and times in the user's language. Formatters are costly to make, so each is made once.
import { language } from './language';

const kept = new Map<string, unknown>();

function once<T>(name: string, make: (locale: string) => T): T {
  const locale = language();
  const key = `${locale} ${name}`;
  if (!kept.has(key)) kept.set(key, make(locale));
  return kept.get(key) as T;
}

export function formatNumber(value: number): string {
  return once('number', (locale) => new Intl.NumberFormat(locale)).format(value);
}

/** A share from 0 to 1. */
export function formatPercent(share: number): string {
  return once(
    'percent',
    (locale) => new Intl.NumberFormat(locale, { style: 'percent', maximumFractionDigits: 0 }),
  ).format(share);
}

const BYTES = ['byte', 'kilobyte', 'megabyte', 'gigabyte', 'terabyte'] as const;

/** By 1024, as memory and disks are sold, in the short names people use for it. */
export function formatBytes(bytes: number): string {
  const step = bytes > 0 ? Math.min(Math.floor(Math.log2(bytes) / 10), BYTES.length - 1) : 0;
  const value = bytes / 1024 ** step;
  const unit = BYTES[step] ?? 'byte';
  const digits = value < 10 && step > 0 ? 1 : 0;
  return once(
    `${unit} ${digits}`,
    (locale) =>
      new Intl.NumberFormat(locale, { style: 'unit', unit, unitDisplay: 'short', maximumFractionDigits: digits }),
  ).format(value);
}

export function formatMebibytes(mebibytes: number): string {
  return formatBytes(mebibytes * 1024 ** 2);
}

export function formatGibibytes(gibibytes: number): string {
  return formatBytes(gibibytes * 1024 ** 3);
}

export function formatDate(iso: string): string {
  return once('date', (locale) => new Intl.DateTimeFormat(locale, { dateStyle: 'medium' })).format(new Date(iso));
}

export function formatDateTime(iso: string): string {
  return once(
    'datetime',
    (locale) => new Intl.DateTimeFormat(locale, { dateStyle: 'medium', timeStyle: 'short' }),
  ).format(new Date(iso));
}

const STEPS = [
  ['second', 60],
  ['minute', 60],
  ['hour', 24],
  ['day', Infinity],
] as const;

/** How long ago, in the largest unit that fits: "12 sec. ago", "now". */
export function formatAge(seconds: number): string {
  let value = Math.max(0, Math.floor(seconds));
  const format = once('age', (locale) => new Intl.RelativeTimeFormat(locale, { style: 'short', numeric: 'auto' }));
  for (const [unit, size] of STEPS) {
    if (value < size) return format.format(-value, unit);
    value = Math.floor(value / size);
  }
  return '';
}

/** For sorting names as people expect: `web-2` before `web-10`. */
export function compareText(one: string, other: string): number {
  return once('collator', (locale) => new Intl.Collator(locale, { numeric: true })).compare(one, other);
}
