// Who is signed in. The access token is only ever in memory; the refresh token is in a cookie that scripts can't read,
// works once, and is shared by all tabs. So tabs take turns at refreshing and hand each other what they got.
import { ApiError, asApiError, errorOf } from '../api/error';
import type { components } from '../api/schema';

type BrowserSession = components['schemas']['BrowserSession'];
export type SessionUser = BrowserSession['user'];

/** Before this many seconds are left, a token is replaced rather than used. */
const MARGIN_SECONDS = 30;
/** How long the tab that refreshed before us may take to hand over its token. */
const HAND_OVER_MS = 150;
const LOCK = 'innkeeper-session';

/** What tabs tell each other. Seconds are what is left at sending: their clocks have nothing in common. */
type Message = { type: 'signed-in'; token: string; secondsLeft: number; user: SessionUser } | { type: 'signed-out' };

/** What a session needs of its surroundings. */
export interface Surroundings {
  send: typeof fetch;
  locks: Pick<LockManager, 'request'> | undefined;
  channel: Pick<BroadcastChannel, 'postMessage' | 'onmessage'>;
  /** Milliseconds that only ever grow: the time of day may be wrong, or be set. */
  now: () => number;
}

export class Session {
  #user: SessionUser | null = null;
  #token: string | null = null;
  #goodUntil = 0;
  /** Counts sign-ins and sign-outs, so that an answer that comes after one changes nothing. */
  #generation = 0;
  #refreshing: Promise<string | null> | null = null;
  readonly #listeners = new Set<() => void>();
  readonly #around: Surroundings;

  constructor(around: Surroundings) {
    this.#around = around;
    around.channel.onmessage = ({ data }: MessageEvent<Message>) => {
      this.#generation += 1;
      if (data.type === 'signed-in') this.#keep(data.token, data.secondsLeft, data.user);
      else this.#forget();
    };
  }

  get user(): SessionUser | null {
    return this.#user;
  }

  /** Calls back whenever somebody signs in or out, here or in another tab. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Takes up the login that this browser has, if any. Throws if that can't be found out. */
  async resume(): Promise<void> {
    await this.#refresh(null);
  }

  /** An access token with some time left; null if nobody is signed in. */
  async token(): Promise<string | null> {
    if (this.#isFresh()) return this.#token;
    return this.#user ? this.replace(this.#token) : null;
  }

  /** Another token than this one, which the service refused or which has expired. */
  async replace(refused: string | null): Promise<string | null> {
    if (this.#token !== refused && this.#isFresh()) return this.#token;
    return this.#refresh(refused);
  }

  signIn(email: string, password: string): Promise<void> {
    return this.#start('login', { email, password });
  }

  register(email: string, password: string, name: string): Promise<void> {
    return this.#start('register', { email, password, name });
  }

  /** Ends the login, in every tab. Throws if the service could not be told: it would still be valid. */
  async signOut(): Promise<void> {
    await this.#inTurn(async () => {
      const response = await this.#post('logout');
      if (!response.ok && response.status !== 401) throw await errorOf(response);
      this.#end();
    });
  }

  /** Accepts a user's own changes of their profile. */
  update(user: SessionUser): void {
    this.#user = user;
    this.#tell();
  }

  async #start(route: 'login' | 'register', body: object): Promise<void> {
    await this.#inTurn(async () => {
      const response = await this.#post(route, body);
      if (!response.ok) throw refusedSignIn(await errorOf(response));
      this.#generation += 1;
      this.#accept((await response.json()) as BrowserSession);
    });
  }

  /** However many ask in this tab, one request is made. */
  #refresh(refused: string | null): Promise<string | null> {
    this.#refreshing ??= this.#refreshInTurn(refused).finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  #refreshInTurn(refused: string | null): Promise<string | null> {
    const before = this.#generation;
    return this.#inTurn(async (waited) => {
      // Another tab was at it. Its message is on the way, but nothing says that it arrives before the lock does.
      if (waited) await this.#handedOver(before);
      if (this.#token !== refused && this.#isFresh()) return this.#token;
      if (this.#generation !== before && !this.#user) return null;
      const generation = this.#generation;
      const response = await this.#post('refresh');
      if (response.status === 401) {
        if (this.#generation === generation) this.#end();
        return this.#token;
      }
      if (!response.ok) throw await errorOf(response);
      const session = (await response.json()) as BrowserSession;
      if (this.#generation === generation) this.#accept(session);
      return this.#token;
    });
  }

  async #handedOver(before: number): Promise<void> {
    for (let waited = 0; waited < HAND_OVER_MS && this.#generation === before; waited += 10) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** One tab at a time. Without locks (plain HTTP) the service's patience with late tabs has to do. */
  async #inTurn<T>(work: (waited: boolean) => Promise<T>): Promise<T> {
    const { locks } = this.#around;
    if (!locks) return work(false);
    const atOnce = await locks.request(LOCK, { ifAvailable: true }, async (lock) =>
      lock ? { result: await work(false) } : null,
    );
    return atOnce ? atOnce.result : await locks.request(LOCK, () => work(true));
  }

  async #post(route: string, body?: object): Promise<Response> {
    try {
      return await this.#around.send(`/api/auth/browser/${route}`, {
        method: 'POST',
        credentials: 'same-origin',
        cache: 'no-store',
        ...(body && { headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }),
      });
    } catch (thrown) {
      throw asApiError(thrown);
    }
  }

  #accept({ accessToken: token, expiresIn: secondsLeft, user }: BrowserSession): void {
    if (!token || !user) throw new ApiError('The answer names no user.', 'UNREADABLE', 200);
    this.#keep(token, secondsLeft, user);
    this.#broadcast({ type: 'signed-in', token, secondsLeft, user });
  }

  #end(): void {
    this.#generation += 1;
    this.#forget();
    this.#broadcast({ type: 'signed-out' });
  }

  #keep(token: string, secondsLeft: number, user: SessionUser): void {
    this.#token = token;
    // A token that lives shorter than the margin is good for half its life.
    const usable = Math.max(secondsLeft - MARGIN_SECONDS, secondsLeft / 2);
    this.#goodUntil = this.#around.now() + usable * 1000;
    this.#user = user;
    this.#tell();
  }

  #forget(): void {
    this.#token = null;
    this.#user = null;
    this.#tell();
  }

  #isFresh(): boolean {
    return this.#token !== null && this.#around.now() < this.#goodUntil;
  }

  #broadcast(message: Message): void {
    this.#around.channel.postMessage(message);
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}

function refusedSignIn(error: ApiError): ApiError {
  return error.status === 401 ? new ApiError(error.message, 'WRONG_LOGIN', 401, error.requestId) : error;
}

/** The session of this tab. */
export function browserSession(): Session {
  return new Session({
    send: (...request) => fetch(...request),
    locks: navigator.locks,
    channel: new BroadcastChannel(LOCK),
    now: () => performance.now(),
  });
}
