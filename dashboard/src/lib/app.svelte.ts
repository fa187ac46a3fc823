// What the whole app shares: the session, the client, and the cache of what the service said.
import { QueryClient } from '@tanstack/svelte-query';
import { createSubscriber } from 'svelte/reactivity';
import { createApi } from '../api/client';
import { asApiError } from '../api/error';
import { browserSession, type SessionUser } from './session';

export const session = browserSession();
export const api = createApi(session);

export const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 15_000,
      retry: (attempts, error) => asApiError(error).mayPass && attempts < 3,
      retryDelay: (attempts, error) => (asApiError(error).retryAfter ?? Math.min(2 ** attempts, 15)) * 1000,
      // A browser that believes itself offline may still reach a service on its own network.
      networkMode: 'always',
    },
  },
});

const subscribed = createSubscriber((update) => session.subscribe(update));

/** Who is signed in; components that read it follow it. */
export function signedIn(): SessionUser | null {
  subscribed();
  return session.user;
}
