import createClient, { type Middleware } from 'openapi-fetch';
import type { Session } from '../lib/session';
import { ApiError, asApiError, errorOf } from './error';
import type { paths } from './schema';

export type Api = ReturnType<typeof createApi>;

/** The client of the service. Every failure is thrown as an [`ApiError`]. */
export function createApi(session: Session, send: typeof fetch = (...request) => fetch(...request)) {
  /** What can be sent again: a request's body can be read only once. */
  const copies = new Map<string, { request: Request; token: string | null }>();

  const signedIn: Middleware = {
    async onRequest({ request, id }) {
      const token = await session.token();
      if (token !== null) request.headers.set('Authorization', `Bearer ${token}`);
      copies.set(id, { request: request.clone(), token });
      return request;
    },
    async onResponse({ response, id }) {
      const sent = copies.get(id);
      copies.delete(id);
      if (response.status === 401 && sent && sent.token !== null) {
        const token = await session.replace(sent.token);
        if (token !== null) {
          sent.request.headers.set('Authorization', `Bearer ${token}`);
          return accepted(await send(sent.request));
        }
      }
      return accepted(response);
    },
    onError({ error, id }) {
      copies.delete(id);
      return asApiError(error);
    },
  };

  const client = createClient<paths>({ baseUrl: location.origin, fetch: (request) => send(request) });
  client.use(signedIn);
  return client;
}

async function accepted(response: Response): Promise<Response> {
  if (!response.ok) throw await errorOf(response);
  return response;
}

/** The body of an answer that has one. */
export async function dataOf<T>(answer: Promise<{ data?: T }>): Promise<T> {
  const { data } = await answer;
  if (data === undefined) throw new ApiError('The answer is empty.', 'UNREADABLE', 200);
  return data;
}
