import type { Route } from './router.svelte';

/** Every page, loaded when it is first opened. */
export const routes: readonly Route[] = [
  { path: '/login', load: () => import('../pages/Login.svelte'), open: true },
  { path: '/register', load: () => import('../pages/Register.svelte'), open: true },
  { path: '/', load: () => import('../pages/Overview.svelte') },
  { path: '/servers', load: () => import('../pages/Servers.svelte') },
  { path: '/servers/:id', load: () => import('../pages/Server.svelte') },
  { path: '/profile', load: () => import('../pages/Profile.svelte') },
];

export const notFound: Route = { path: '*', load: () => import('../pages/NotFound.svelte') };

/** Where to go after signing in: only ever to a page of ours. */
export function destination(next: string | null): string {
  return next?.startsWith('/') && !/^\/[/\\]/.test(next) ? next : '/';
}
