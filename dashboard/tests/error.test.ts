import { describe, expect, it } from 'vitest';
import { Action } from '../src/api/action';
import { ApiError, asApiError, errorOf } from '../src/api/error';

describe('a failed answer', () => {
  it('is read with everything that it says', async () => {
    const body = {
      error: 'Not valid.',
      code: 'INVALID',
      details: { fields: { name: 'Too long.', odd: 7 } },
      requestId: 'r-1',
    };
    const headers = { 'Retry-After': '12', 'X-Request-Id': 'r-0' };
    const error = await errorOf(Response.json(body, { status: 422, headers }));
    expect(error).toMatchObject({ code: 'INVALID', status: 422, requestId: 'r-1', retryAfter: 12 });
    expect(error.message).toBe('Not valid.');
    expect(error.fields).toEqual({ name: 'Too long.' });
  });

  it('names the operation that holds a server', async () => {
    const body = { error: 'Busy.', code: 'LOCKED', details: { operationId: 'o-1' } };
    expect(await errorOf(Response.json(body, { status: 409 }))).toMatchObject({ operationId: 'o-1', requestId: null });
  });

  it.each(['<html>502</html>', '[]', 'null', '{"error":7,"code":"X"}'])('may be a proxy’s: %s', async (text) => {
    const error = await errorOf(new Response(text, { status: 502, headers: { 'X-Request-Id': 'r-2' } }));
    expect(error).toMatchObject({ code: 'UNREADABLE', status: 502, requestId: 'r-2', fields: {} });
    expect(error.mayPass).toBe(true);
  });

  it('has no time to wait for if that is a date', async () => {
    const headers = { 'Retry-After': 'Wed, 21 Oct 2026 07:28:00 GMT' };
    expect((await errorOf(new Response('', { status: 503, headers }))).retryAfter).toBeNull();
  });

  it('may pass unless it is about the request', () => {
    const passes = [0, 429, 500, 503, 507].map((status) => new ApiError('', 'INTERNAL', status).mayPass);
    const stays = [400, 401, 403, 404, 409, 422].map((status) => new ApiError('', 'INTERNAL', status).mayPass);
    expect([passes.every(Boolean), stays.some(Boolean)]).toEqual([true, false]);
  });

  it('can be anything that was thrown', () => {
    const error = new ApiError('', 'LOCKED', 409);
    expect(asApiError(error)).toBe(error);
    expect(asApiError(new TypeError('Failed to fetch')).code).toBe('UNREACHABLE');
    expect(asApiError('what').code).toBe('UNREADABLE');
  });
});

describe('an action', () => {
  it('has one key for a request and its retries', () => {
    const action = new Action();
    const first = action.headers({ name: 'a' });
    expect(action.headers({ name: 'a' })).toEqual(first);
    expect(first['Idempotency-Key']).toMatch(/^[0-9a-f]{32}$/);
  });

  it('has another key once the request was changed or carried out', () => {
    const action = new Action();
    const keys = [action.headers({ name: 'a' }), action.headers({ name: 'b' })];
    action.done();
    keys.push(action.headers({ name: 'b' }), new Action().headers({ name: 'b' }));
    expect(new Set(keys.map((key) => key['Idempotency-Key'])).size).toBe(4);
  });
});
