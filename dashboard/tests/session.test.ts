import { describe, expect, it } from 'vitest';
import { ApiError } from '../src/api/error';
import { createApi } from '../src/api/client';
import { Session, type Surroundings } from '../src/lib/session';

type Work = (lock: object | null) => unknown;

/** A browser with tabs: one lock, one channel that delivers later, and one cookie behind `send`. */
class Browser {
  readonly tabs: Session[] = [];
  readonly sent: string[] = [];
  clock = 0;
  answer: (path: string) => Response | Promise<Response> = (path) => this.issue(path);
  readonly #channels = new Set<Pick<BroadcastChannel, 'postMessage' | 'onmessage'>>();
  /** As browsers have it, as far as a session asks for it. */
  readonly #locks = {
    request: async (_name: string, ...rest: [unknown, Work] | [Work]): Promise<unknown> => {
      const work = rest[rest.length - 1] as Work;
      if (rest.length === 2 && this.#waiting > 0) return work(null);
      this.#waiting += 1;
      const before = this.#turn;
      const done = (async () => {
        await before.catch(() => {});
        return work({});
      })().finally(() => (this.#waiting -= 1));
      this.#turn = done.catch(() => {});
      return done;
    },
  };
  #waiting = 0;
  #turn: Promise<unknown> = Promise.resolve();
  #issued = 0;

  tab(): Session {
    const session = new Session({
      send: async (input) => {
        const path = String(input instanceof Request ? input.url : input);
        this.sent.push(path.slice(path.lastIndexOf('/') + 1));
        return this.answer(path);
      },
      locks: this.#locks as Surroundings['locks'],
      channel: this.#channel(),
      now: () => this.clock,
    });
    this.tabs.push(session);
    return session;
  }

  issue(path: string, expiresIn = 900): Response {
    if (path.endsWith('/logout')) return new Response(null, { status: 204 });
    this.#issued += 1;
    const user = { id: 7, email: 'a@example.com', name: 'A' };
    return Response.json({ accessToken: `token-${this.#issued}`, expiresIn, sessionExpiresIn: 86_400, user });
  }

  #channel(): Pick<BroadcastChannel, 'postMessage' | 'onmessage'> {
    const channel: Pick<BroadcastChannel, 'postMessage' | 'onmessage'> = {
      onmessage: null,
      postMessage: (data: unknown) => {
        // The other tabs hear of it a little after the lock was let go.
        for (const other of this.#channels) {
          if (other === channel) continue;
          setTimeout(() => other.onmessage?.call(other as BroadcastChannel, new MessageEvent('message', { data })), 20);
        }
      },
    };
    this.#channels.add(channel);
    return channel;
  }
}

const later = () => new Promise((resolve) => setTimeout(resolve, 60));
const refused = () => Response.json({ error: 'No.', code: 'UNAUTHENTICATED' }, { status: 401 });

describe('a session', () => {
  it('is taken up by one request, however many tabs are restored at once', async () => {
    const browser = new Browser();
    const tabs = Array.from({ length: 20 }, () => browser.tab());
    await Promise.all(tabs.map((tab) => tab.resume()));
    expect(browser.sent).toEqual(['refresh']);
    expect(new Set(await Promise.all(tabs.map((tab) => tab.token())))).toEqual(new Set(['token-1']));
    expect(tabs.every((tab) => tab.user?.id === 7)).toBe(true);
  });

  it('is refreshed once for all requests of a tab', async () => {
    const browser = new Browser();
    const tab = browser.tab();
    await tab.signIn('a@example.com', 'secret');
    browser.clock += 871_000;
    expect(await Promise.all([tab.token(), tab.token(), tab.token()])).toEqual(['token-2', 'token-2', 'token-2']);
    expect(browser.sent).toEqual(['login', 'refresh']);
  });

  it('counts a token’s life from when it came, not by the time of day', async () => {
    const browser = new Browser();
    const tab = browser.tab();
    await tab.signIn('a@example.com', 'secret');
    browser.clock += 860_000;
    expect(await tab.token()).toBe('token-1');
    browser.clock += 20_000;
    expect(await tab.token()).toBe('token-2');
  });

  it('uses a token that lives shorter than the margin for half its life', async () => {
    const browser = new Browser();
    browser.answer = (path) => browser.issue(path, 10);
    const tab = browser.tab();
    await tab.signIn('a@example.com', 'secret');
    browser.clock += 4_000;
    expect(await tab.token()).toBe('token-1');
    browser.clock += 2_000;
    expect(await tab.token()).toBe('token-2');
  });

  it('ends in all tabs when it ends in one', async () => {
    const browser = new Browser();
    const [one, other] = [browser.tab(), browser.tab()];
    await one.signIn('a@example.com', 'secret');
    await later();
    expect(other.user?.id).toBe(7);
    let told = 0;
    other.subscribe(() => (told += 1));
    await one.signOut();
    await later();
    expect([one.user, other.user, await one.token(), await other.token(), told]).toEqual([null, null, null, null, 1]);
    expect(browser.sent).toEqual(['login', 'logout']);
  });

  it('goes on if the service could not be told of its end', async () => {
    const browser = new Browser();
    const tab = browser.tab();
    await tab.signIn('a@example.com', 'secret');
    browser.answer = () => Promise.reject(new TypeError('Failed to fetch'));
    await expect(tab.signOut()).rejects.toMatchObject({ code: 'UNREACHABLE' });
    expect(tab.user?.id).toBe(7);
  });

  it('ends everywhere when the service refuses to refresh it', async () => {
    const browser = new Browser();
    const [one, other] = [browser.tab(), browser.tab()];
    await one.signIn('a@example.com', 'secret');
    await later();
    browser.answer = refused;
    browser.clock += 900_000;
    expect(await one.token()).toBeNull();
    await later();
    expect([one.user, other.user]).toEqual([null, null]);
  });

  it('survives a service that is down for a moment', async () => {
    const browser = new Browser();
    const tab = browser.tab();
    await tab.signIn('a@example.com', 'secret');
    browser.clock += 900_000;
    browser.answer = () => Response.json({ error: 'Later.', code: 'DATABASE_UNAVAILABLE' }, { status: 503 });
    await expect(tab.token()).rejects.toMatchObject({ status: 503 });
    expect(tab.user?.id).toBe(7);
    browser.answer = (path) => browser.issue(path);
    expect(await tab.token()).toBe('token-2');
  });

  it('is none for whoever has no login', async () => {
    const browser = new Browser();
    browser.answer = refused;
    const tab = browser.tab();
    await tab.resume();
    expect([tab.user, await tab.token()]).toEqual([null, null]);
    expect(browser.sent).toEqual(['refresh']);
  });
});

async function client(answers: (request: Request) => Promise<Response> | Response) {
  const browser = new Browser();
  const session = browser.tab();
  await session.signIn('a@example.com', 'secret');
  const seen: { authorization: string | null; key: string | null; body: string }[] = [];
  const api = createApi(session, async (input) => {
    const request = input as Request;
    const answer = await answers(request.clone());
    const { headers } = request;
    seen.push({
      authorization: headers.get('Authorization'),
      key: headers.get('Idempotency-Key'),
      body: await request.text(),
    });
    return answer;
  });
  return { api, seen, browser, session };
}

describe('the client', () => {
  const body = { currentPassword: 'old', newPassword: 'new-secret' };
  const params = { header: { 'Idempotency-Key': 'k1' } };

  it('refreshes after a 401 and sends the same request once more', async () => {
    const { api, seen } = await client((request) =>
      request.headers.get('Authorization') === 'Bearer token-1' ? refused() : new Response(null, { status: 204 }),
    );
    await api.POST('/api/auth/password', { body, params });
    expect(seen).toEqual([
      { authorization: 'Bearer token-1', key: 'k1', body: JSON.stringify(body) },
      { authorization: 'Bearer token-2', key: 'k1', body: JSON.stringify(body) },
    ]);
  });

  it('does not try a third time', async () => {
    const { api, seen, browser } = await client(refused);
    await expect(api.POST('/api/auth/password', { body, params })).rejects.toBeInstanceOf(ApiError);
    expect(seen).toHaveLength(2);
    expect(browser.sent).toEqual(['login', 'refresh']);
  });

  it('does not send again what failed otherwise', async () => {
    const { api, seen } = await client(() => Response.json({ error: 'Busy.', code: 'LOCKED' }, { status: 409 }));
    await expect(api.POST('/api/auth/password', { body, params })).rejects.toMatchObject({ code: 'LOCKED' });
    expect(seen).toHaveLength(1);
  });

  it('says so when the service can’t be reached', async () => {
    const { api } = await client(() => Promise.reject(new TypeError('Failed to fetch')));
    await expect(api.GET('/api/auth/me')).rejects.toMatchObject({ code: 'UNREACHABLE', status: 0 });
  });
});
