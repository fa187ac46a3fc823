import { getLocale, setLocale, type Locale } from '../i18n/texts/runtime';

export const LANGUAGES: Readonly<Record<Locale, string>> = { en: 'English', ru: 'Русский' };

export function language(): Locale {
  return getLocale();
}

/** Every text may change, so the page is loaded anew; the session is taken up again from its cookie. */
export function chooseLanguage(locale: Locale): void {
  void setLocale(locale);
}
