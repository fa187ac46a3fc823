// The live view: one socket per tab, whose events are written into the cache of queries. Pages say which servers they
// show; after every (re)connection the service sends the current state of each, so nothing is missed.
import type { Socket } from 'socket.io-client';
import { queries, session } from './app.svelte';
import {
  SERVERS,
  hasEnded,
  isNews,
  updated,
  type Operation,
  type ServerList,
  type StatsData,
  type Update,
} from './servers';

/** Most subscriptions that the service accepts on one connection. */
const MOST_WATCHED = 1000;
/** A sweep's events come in one burst: a list is redrawn once for all of them. */
const FLUSH_MS = 150;
/** An interruption that is shorter than this is not worth a word. */
const PATIENCE_MS = 3000;
const RETRY_MS = 5000;

interface Events {
  'server-stats': (event: { serverId: number; stats: { data: StatsData } }) => void;
  'server-alerts': (event: { serverId: number; alerts: { id: number }[] }) => void;
  operation: (operation: Operation) => void;
  'session-ended': () => void;
}

interface Requests {
  'subscribe-server': (serverId: number) => void;
  'unsubscribe-server': (serverId: number) => void;
}

class Live {
  /** Whether the connection has been lost for long enough to say so. */
  lost = $state(false);
  #socket: Socket<Events, Requests> | null = null;
  #token: string | null = null;
  readonly #watchers = new Set<ReadonlySet<number>>();
  #subscribed = new Set<number>();
  #updates = new Map<number, Update>();
  readonly #alarms = new Map<number, string>();
  #flushing: number | undefined;
  #losing: number | undefined;
  #retrying: number | undefined;
  #resync = false;

  async start(): Promise<void> {
    const { io } = await import('socket.io-client');
    if (this.#socket || !session.user) return;
    const socket: Socket<Events, Requests> = io({
      // Polling only where a proxy lets no WebSocket through: behind several processes it needs sticky sessions.
      transports: ['websocket', 'polling'],
      tryAllTransports: true,
      auth: (answer) => void this.#authenticate(answer),
    });
    this.#socket = socket;
    socket.on('connect', () => this.#connected());
    socket.on('disconnect', (reason) => this.#disconnected(reason === 'io server disconnect'));
    socket.on('connect_error', (error) => void this.#refused(error.message));
    socket.on('server-stats', ({ serverId, stats }) => this.#update(serverId, { stats: stats.data }));
    socket.on('operation', (operation) => this.#operation(operation));
    socket.on('server-alerts', ({ serverId, alerts }) => this.#alerts(serverId, alerts));
    socket.on('session-ended', () => void session.replace(this.#token).catch(() => {}));
  }

  stop(): void {
    this.#socket?.disconnect();
    this.#socket = null;
    for (const timer of [this.#flushing, this.#losing, this.#retrying]) clearTimeout(timer);
    this.#losing = undefined;
    this.#flushing = undefined;
    this.#subscribed.clear();
    this.#updates.clear();
    this.#alarms.clear();
    this.#resync = false;
    this.lost = false;
  }

  /** Asks for updates of these servers, until the returned function is called. */
  watch(servers: Iterable<number>): () => void {
    const watched = new Set(servers);
    this.#watchers.add(watched);
    this.#subscribe();
    return () => {
      this.#watchers.delete(watched);
      // The next page may want the same ones.
      queueMicrotask(() => this.#subscribe());
    };
  }

  #subscribe(): void {
    const socket = this.#socket;
    if (!socket?.connected) return;
    const wanted = new Set([...this.#watchers].flatMap((watched) => [...watched]).slice(0, MOST_WATCHED));
    for (const server of this.#subscribed) if (!wanted.has(server)) socket.emit('unsubscribe-server', server);
    for (const server of wanted) if (!this.#subscribed.has(server)) socket.emit('subscribe-server', server);
    this.#subscribed = wanted;
  }

  async #authenticate(answer: (auth: object) => void): Promise<void> {
    this.#token = await session.token().catch(() => null);
    answer({ token: this.#token });
  }

  #connected(): void {
    clearTimeout(this.#losing);
    this.#losing = undefined;
    this.lost = false;
    this.#subscribed.clear();
    this.#subscribe();
    if (this.#resync) void queries.invalidateQueries();
    this.#resync = true;
  }

  #disconnected(byService: boolean): void {
    this.#losing ??= window.setTimeout(() => (this.lost = true), PATIENCE_MS);
    // Socket.IO takes this for an answer and does not try again.
    if (byService) this.#reconnectLater();
  }

  async #refused(message: string): Promise<void> {
    this.#losing ??= window.setTimeout(() => (this.lost = true), PATIENCE_MS);
    if (message.startsWith('UNAUTHENTICATED')) await session.replace(this.#token).catch(() => null);
    if (this.#socket && !this.#socket.active) this.#reconnectLater();
  }

  #reconnectLater(): void {
    clearTimeout(this.#retrying);
    this.#retrying = window.setTimeout(() => this.#socket?.connect(), RETRY_MS);
  }

  #operation(operation: Operation): void {
    const server = operation.serverId;
    if (server === null || server === undefined) return;
    const changes = hasEnded(operation) || isNews(operation);
    this.#update(server, { operation });
    // It decides what the server allows, and may have made, changed or removed more than its status.
    if (changes) void queries.invalidateQueries({ queryKey: [SERVERS] });
  }

  #alerts(server: number, alerts: { id: number }[]): void {
    const open = alerts.map(({ id }) => id).join();
    const before = this.#alarms.get(server) ?? '';
    this.#alarms.set(server, open);
    if (open !== before) void queries.invalidateQueries({ queryKey: ['alerts'] });
  }

  #update(server: number, update: Update): void {
    this.#updates.set(server, { ...this.#updates.get(server), ...update });
    this.#flushing ??= window.setTimeout(() => this.#flush(), FLUSH_MS);
  }

  #flush(): void {
    this.#flushing = undefined;
    const updates = this.#updates;
    this.#updates = new Map();
    queries.setQueriesData<ServerList>({ queryKey: [SERVERS] }, (list) => {
      // Other answers about servers are kept under the same name.
      if (!list?.rows?.some(({ id }) => updates.has(id))) return list;
      const rows = list.rows.map((row) => {
        const update = updates.get(row.id);
        return update ? updated(row, update) : row;
      });
      return { ...list, rows };
    });
  }
}

export const live = new Live();
