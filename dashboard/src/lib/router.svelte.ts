// Routes over the history API: lazy pages, the query as state, and leave to refuse leaving a page.
import type { Component } from 'svelte';

export interface Route {
  /** Segments that begin with a colon match anything: `/servers/:id`. */
  path: string;
  load: () => Promise<{ default: Component }>;
  /** Whether one can see it without having signed in. */
  open?: boolean;
}

export interface Match {
  route: Route;
  params: Readonly<Record<string, string>>;
}

/** Says whether the page may be left now; it may ask the user. */
export type Guard = () => boolean | Promise<boolean>;

export function matchRoute(routes: readonly Route[], path: string): Match | undefined {
  const segments = split(path);
  for (const route of routes) {
    const pattern = split(route.path);
    if (pattern.length !== segments.length) continue;
    const params: Record<string, string> = {};
    const fits = pattern.every((part, index) => {
      const segment = segments[index] ?? '';
      if (!part.startsWith(':')) return part === segment;
      params[part.slice(1)] = decode(segment);
      return true;
    });
    if (fits) return { route, params };
  }
  return undefined;
}

function split(path: string): string[] {
  return path.split('/').filter((segment) => segment !== '');
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

class Router {
  #url = $state.raw(new URL(location.href));
  readonly #guards = new Set<Guard>();
  /** Where we are in the history, to find back to a page that may not be left. */
  #index = readIndex(history.state) ?? 0;
  #ignoring = false;

  constructor() {
    history.replaceState({ index: this.#index }, '');
    addEventListener('popstate', (event) => void this.#moved(readIndex(event.state)));
    addEventListener('beforeunload', (event) => {
      if (this.#guards.size > 0) event.preventDefault();
    });
    document.addEventListener('click', (event) => this.#clicked(event));
  }

  get path(): string {
    return this.#url.pathname;
  }

  get query(): URLSearchParams {
    return this.#url.searchParams;
  }

  /** A part of the path, from 0: of `/servers/12`, 1 is `12`. */
  segment(index: number): string {
    return decode(split(this.path)[index] ?? '');
  }

  /** The address without its origin, to come back to. */
  get here(): string {
    return this.#url.pathname + this.#url.search;
  }

  async go(to: string, { replace = false } = {}): Promise<void> {
    const url = new URL(to, location.origin);
    if (url.pathname !== this.path && !(await this.#mayLeave())) return;
    this.#enter(url, replace);
  }

  /** Changes parts of the query in place: empty values are left out of the address. */
  setQuery(changes: Record<string, string | null>): void {
    const url = new URL(this.#url);
    for (const [name, value] of Object.entries(changes)) {
      if (value) url.searchParams.set(name, value);
      else url.searchParams.delete(name);
    }
    this.#enter(url, true);
  }

  /** Asks before the page is left, until the returned function is called. */
  guard(guard: Guard): () => void {
    this.#guards.add(guard);
    return () => this.#guards.delete(guard);
  }

  #enter(url: URL, replace: boolean): void {
    if (!replace) this.#index += 1;
    history[replace ? 'replaceState' : 'pushState']({ index: this.#index }, '', url);
    this.#url = url;
  }

  async #moved(index: number | undefined): Promise<void> {
    if (this.#ignoring) {
      this.#ignoring = false;
      return;
    }
    const to = new URL(location.href);
    const steps = (index ?? 0) - this.#index;
    if (this.#guards.size > 0 && to.pathname !== this.path && steps !== 0) {
      // The browser has already moved: go back to where we are, ask there, and only then follow.
      this.#ignoring = true;
      history.go(-steps);
      if (await this.#mayLeave()) history.go(steps);
      return;
    }
    this.#index = index ?? 0;
    this.#url = to;
  }

  async #mayLeave(): Promise<boolean> {
    for (const guard of this.#guards) {
      if (!(await guard())) return false;
      this.#guards.delete(guard);
    }
    return true;
  }

  /** Plain links to our own pages are followed without loading anything anew. */
  #clicked(event: MouseEvent): void {
    if (
      event.defaultPrevented ||
      event.button !== 0 ||
      event.metaKey ||
      event.ctrlKey ||
      event.shiftKey ||
      event.altKey
    ) {
      return;
    }
    const link = event.target instanceof Element ? event.target.closest('a') : null;
    if (!link || link.target || link.hasAttribute('download') || link.getAttribute('rel') === 'external') return;
    const url = new URL(link.href, location.href);
    if (url.origin !== location.origin || (url.hash && url.pathname === this.path)) return;
    event.preventDefault();
    void this.go(url.href);
  }
}

function readIndex(state: unknown): number | undefined {
  if (typeof state !== 'object' || state === null || !('index' in state)) return undefined;
  return typeof state.index === 'number' ? state.index : undefined;
}

export const router = new Router();
