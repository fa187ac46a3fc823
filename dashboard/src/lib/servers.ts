// Servers as the app shows them: what the API lists, with what the live view adds.
import type { components, operations } from '../api/schema';
import { dataOf } from '../api/client';
import { m } from '../i18n/texts/messages';
import { api } from './app.svelte';
import { now } from './clock.svelte';
import { formatGibibytes, formatMebibytes } from './format';
import { isServerStatus } from './states';

export type Server = components['schemas']['ServerView'];
export type Operation = components['schemas']['OperationView'];
export type StatsData = components['schemas']['StatsData'];

export interface Figures {
  /** Shares from 0 to 1; null while unknown. */
  cpu: number | null;
  memory: number | null;
  disk: number | null;
  /** Bytes in use. */
  memoryUsed: number | null;
  diskUsed: number | null;
  /** Seconds since the last start. */
  uptime: number | null;
  /** When the host was looked at, by `performance.now`. */
  seenAt: number;
}

export interface ServerRow extends Server {
  figures: Figures | null;
  /** The operation that works on it. */
  operation: Operation | null;
}

export interface ServerList {
  rows: ServerRow[];
  total: number;
}

/** What the service has sent about a server since the last full list. */
export interface Update {
  stats?: StatsData;
  operation?: Operation;
}

export type ServerQuery = NonNullable<operations['listServers']['parameters']['query']>;

export const SERVERS = 'servers';

const rowsById = new Map<number, ServerRow>();

/** Fetches a list; figures that are known already stay. */
export async function fetchServers(query: ServerQuery): Promise<ServerList> {
  const answer = api.GET('/api/server', { params: { query } });
  const servers = await dataOf(answer);
  const total = Number((await answer).response.headers.get('X-Total-Count') ?? servers.length);
  return { rows: servers.map(rowOf), total };
}

/** One server, as a list of one, which the live view keeps up to date like others. */
export async function fetchServer(id: number): Promise<ServerList> {
  const server = await dataOf(api.GET('/api/server/{id}', { params: { path: { id } } }));
  return { rows: [rowOf(server)], total: 1 };
}

function rowOf(server: Server): ServerRow {
  const figures = server.stats ? figuresOf(server.stats) : (rowsById.get(server.id)?.figures ?? null);
  return remember({ ...server, figures, operation: server.currentOperation ?? null });
}

/** Two sweeps have been missed: the figures say little about now. */
export function isStale({ figures }: ServerRow): boolean {
  return figures !== null && now() - figures.seenAt > 75_000;
}

export function sizeOf({ cores, memory, disk }: Server): string {
  return [m.cores({ count: cores }), formatMebibytes(memory), formatGibibytes(disk)].join(' · ');
}

/** Whether this has not been known to work on its server: what the server allows now has to be fetched. */
export function isNews({ id, serverId }: Operation): boolean {
  const row = rowsById.get(serverId ?? 0);
  return row !== undefined && row.operation?.id !== id;
}

/** The row with what the live view says; the same row if that changes nothing in it. */
export function updated(row: ServerRow, { stats, operation }: Update): ServerRow {
  const next = { ...row };
  if (stats) {
    next.figures = figuresOf(stats);
    if (isServerStatus(stats.status)) next.status = stats.status;
  }
  if (operation) next.operation = hasEnded(operation) ? null : operation;
  return remember(next);
}

export function forgetServers(): void {
  rowsById.clear();
}

export function hasEnded({ state }: Operation): boolean {
  return state === 'succeeded' || state === 'failed';
}

function figuresOf(stats: Pick<StatsData, 'age' | 'cpu' | 'memory' | 'disk' | 'uptime'>): Figures | null {
  if (stats.age === null || stats.age === undefined) return null;
  return {
    cpu: stats.cpu ?? null,
    memory: share(stats.memory.usage),
    disk: share(stats.disk.usage),
    memoryUsed: stats.memory.used ?? null,
    diskUsed: stats.disk.used ?? null,
    uptime: stats.uptime ?? null,
    seenAt: performance.now() - stats.age * 1000,
  };
}

function share(percent: number | null | undefined): number | null {
  return percent === null || percent === undefined ? null : percent / 100;
}

function remember(row: ServerRow): ServerRow {
  rowsById.set(row.id, row);
  return row;
}
