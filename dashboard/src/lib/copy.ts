import { m } from '../i18n/texts/messages';
import { announcer } from './announcer.svelte';

/** Copies a text and says so. */
export async function copyText(text: string, copied: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    announcer.note(copied);
  } catch {
    announcer.note(m.copy_refused());
  }
}
