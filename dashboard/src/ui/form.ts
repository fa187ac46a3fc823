import { getContext, setContext } from 'svelte';

/** What a form and its fields know of each other. */
export interface FormState {
  readonly errors: Readonly<Record<string, string>>;
  /** Adds a field; the returned function removes it. */
  add: (name: string, required: () => boolean) => () => void;
}

const KEY = Symbol('form');

export function provideForm(state: FormState): void {
  setContext(KEY, state);
}

export function useForm(): FormState | undefined {
  return getContext<FormState | undefined>(KEY);
}
