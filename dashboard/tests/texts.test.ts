import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { m } from '../src/i18n/texts/messages';
import { overwriteGetLocale, type Locale } from '../src/i18n/texts/runtime';
import { compareText, formatAge, formatBytes, formatGibibytes, formatNumber, formatPercent } from '../src/lib/format';

interface Variants {
  match: Record<string, string>;
}

type Texts = Record<string, string | Variants[]>;

const read = (locale: Locale): Texts => JSON.parse(readFileSync(`messages/${locale}.json`, 'utf8')) as Texts;
const texts = { en: read('en'), ru: read('ru') };

function use(locale: Locale): void {
  overwriteGetLocale(() => locale);
}
afterEach(() => use('en'));

/** Spaces that don't break look like others here. */
const plain = (text: string) => text.replaceAll(/[\u00a0\u202f]/g, ' ');

const names = (text: string) => [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name).toSorted();

describe('texts', () => {
  it('exist in both languages', () => {
    expect(Object.keys(texts.ru).toSorted()).toEqual(Object.keys(texts.en).toSorted());
  });

  it('are sorted by name, and none is empty', () => {
    for (const all of Object.values(texts)) {
      const { $schema: _, ...messages } = all;
      expect(Object.keys(messages)).toEqual(Object.keys(messages).toSorted());
      expect(Object.values(messages)).not.toContain('');
    }
  });

  it('have the same values to fill in', () => {
    for (const [key, text] of Object.entries(texts.en)) {
      const other = texts.ru[key];
      if (typeof text === 'string' && typeof other === 'string')
        expect([key, names(other)]).toEqual([key, names(text)]);
      else expect([key, typeof other]).toEqual([key, typeof text]);
    }
  });

  it('have every plural of their language', () => {
    for (const locale of ['en', 'ru'] as const) {
      const categories = new Intl.PluralRules(locale).resolvedOptions().pluralCategories;
      for (const text of Object.values(texts[locale])) {
        if (typeof text === 'string') continue;
        const has = Object.keys(text[0]?.match ?? {}).map((variant) => variant.split('=')[1]);
        expect(has.toSorted()).toEqual(categories.toSorted());
      }
    }
  });

  it('are all used', () => {
    const sources = import.meta.glob<string>(['../src/**/*.{ts,svelte}', '!../src/i18n/**'], {
      eager: true,
      query: '?raw',
      import: 'default',
    });
    const code = Object.values(sources).join('\n');
    const unused = Object.keys(texts.en).filter((key) => key !== '$schema' && !code.includes(`m.${key}`));
    expect(unused).toEqual([]);
  });

  it('agree with numbers', () => {
    expect([1, 2, 5].map((count) => m.servers_count({ count }))).toEqual(['1 server', '2 servers', '5 servers']);
    use('ru');
    const counted = [1, 2, 5, 11, 21, 22, 25].map((count) => m.servers_count({ count }));
    expect(counted).toEqual([
      '1 сервер',
      '2 сервера',
      '5 серверов',
      '11 серверов',
      '21 сервер',
      '22 сервера',
      '25 серверов',
    ]);
  });
});

describe('numbers and times', () => {
  it.each([
    ['en', '1,234,567.5', '86%', '512 byte', '1.5 GB', '20 GB', '12 sec. ago', '3 min. ago', '2 days ago'],
    ['ru', '1 234 567,5', '86 %', '512 Б', '1,5 ГБ', '20 ГБ', '12 сек. назад', '3 мин. назад', 'позавчера'],
  ] as const)('are written as in %s', (locale, number, percent, bytes, half, disk, seconds, minutes, days) => {
    use(locale);
    expect(plain(formatNumber(1_234_567.5))).toBe(number);
    expect(plain(formatPercent(0.857))).toBe(percent);
    expect([512, 1.5 * 1024 ** 3].map((value) => plain(formatBytes(value)))).toEqual([bytes, half]);
    expect(plain(formatGibibytes(20))).toBe(disk);
    expect([12.9, 200, 2.5 * 86_400].map((value) => plain(formatAge(value)))).toEqual([seconds, minutes, days]);
  });

  it('are never in the future', () => {
    expect(formatAge(-3)).toBe('now');
  });

  it('sort names as people do', () => {
    expect(['web-10', 'web-2', 'Äpfel', 'zoo'].toSorted(compareText)).toEqual(['Äpfel', 'web-2', 'web-10', 'zoo']);
  });
});
