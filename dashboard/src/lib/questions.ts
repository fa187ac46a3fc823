// What pages ask the service for, by the names under which the answers are kept.
import { createQuery } from '@tanstack/svelte-query';
import { dataOf } from '../api/client';
import { api } from './app.svelte';
import { SERVERS, fetchServer, fetchServers, type ServerList, type ServerQuery } from './servers';

/** While a server is worked on: what ends between an answer and the live view's subscription is not told. */
function whileBusy({ state }: { state: { data?: ServerList | undefined } }): number | false {
  return state.data?.rows.some(({ operation }) => operation !== null) ? 10_000 : false;
}

export function askServers(query: () => ServerQuery) {
  return createQuery(() => ({
    queryKey: [SERVERS, query()],
    queryFn: () => fetchServers(query()),
    refetchInterval: whileBusy,
    // A filter or page that changes leaves the rows in place until the new ones are there.
    placeholderData: <T>(before: T | undefined) => before,
  }));
}

export function askServer(id: () => number) {
  return createQuery(() => ({
    queryKey: [SERVERS, id()],
    queryFn: () => fetchServer(id()),
    refetchInterval: whileBusy,
  }));
}

/** The latest operations of a server. */
export function askOperationsOf(server: () => number) {
  return createQuery(() => ({
    queryKey: [SERVERS, server(), 'operations'],
    queryFn: () =>
      dataOf(api.GET('/api/server/{id}/operations', { params: { path: { id: server() }, query: { limit: 10 } } })),
  }));
}

export function askOpenAlerts() {
  return createQuery(() => ({
    queryKey: ['alerts', 'open'],
    queryFn: () => dataOf(api.GET('/api/alerts', { params: { query: { open: true, limit: 20 } } })),
    refetchInterval: 60_000,
  }));
}

export function askMe() {
  return createQuery(() => ({ queryKey: ['me'], queryFn: () => dataOf(api.GET('/api/auth/me')) }));
}

export function askSessions() {
  return createQuery(() => ({ queryKey: ['sessions'], queryFn: () => dataOf(api.GET('/api/auth/sessions')) }));
}

/** Only the provider's staff may see those of everybody. */
export function askStuckOperations(wanted: () => boolean) {
  return createQuery(() => ({
    queryKey: ['operations', 'stuck'],
    queryFn: () => dataOf(api.GET('/api/operations', { params: { query: { state: 'stuck', limit: 20 } } })),
    enabled: wanted(),
    refetchInterval: 60_000,
  }));
}
