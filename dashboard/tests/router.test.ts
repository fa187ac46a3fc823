import { beforeEach, describe, expect, it, vi } from 'vitest';
import { matchRoute, router, type Route } from '../src/lib/router.svelte';
import { destination } from '../src/lib/routes';

const load = () => Promise.reject(new Error('not loaded in tests'));
const routes: Route[] = ['/', '/servers', '/servers/new', '/servers/:id'].map((path) => ({ path, load }));

const stay = (event: Event) => event.preventDefault();

/** Whether our own code took the click over. */
const click = (selector: string, init: MouseEventInit = {}) => {
  const event = new MouseEvent('click', { bubbles: true, cancelable: true, ...init });
  let followed = false;
  addEventListener('click', () => (followed = event.defaultPrevented), { once: true });
  addEventListener('click', stay, { once: true });
  document.querySelector(selector)?.dispatchEvent(event);
  return followed;
};

describe('an address', () => {
  it.each([
    ['/', '/', {}],
    ['/servers/', '/servers', {}],
    ['/servers/new', '/servers/new', {}],
    ['/servers/12', '/servers/:id', { id: '12' }],
    ['/servers/a%2Fb', '/servers/:id', { id: 'a/b' }],
    ['/servers/%E0%A4', '/servers/:id', { id: '%E0%A4' }],
  ])('%s is of %s', (path, pattern, params) => {
    const match = matchRoute(routes, path);
    expect([match?.route.path, match?.params]).toEqual([pattern, params]);
  });

  it.each(['/nowhere', '/servers/1/2'])('%s is of no page', (path) => {
    expect(matchRoute(routes, path)).toBeUndefined();
  });

  it('to go on to after signing in is one of ours', () => {
    expect(destination('/servers?name=web')).toBe('/servers?name=web');
    for (const foreign of [null, '', '//evil.example', '/\\evil.example', 'https://evil.example', 'servers']) {
      expect(destination(foreign)).toBe('/');
    }
  });
});

describe('the router', () => {
  beforeEach(() => router.go('/', { replace: true }));

  it('keeps filters in the address, and leaves out empty ones', async () => {
    await router.go('/servers?name=web&page=3');
    const before = history.length;
    router.setQuery({ name: 'db', page: null, status: '' });
    expect([router.here, history.length]).toEqual(['/servers?name=db', before]);
  });

  it('follows plain links to our own pages only', async () => {
    document.body.innerHTML = `
      <a id="ours" href="/servers"><b>x</b></a><a id="other" href="https://example.com/">x</a>
      <a id="docs" href="/api/docs" rel="external">x</a>`;
    expect(click('#other')).toBe(false);
    expect(click('#docs')).toBe(false);
    expect(click('#ours', { ctrlKey: true })).toBe(false);
    expect(click('#ours b')).toBe(true);
    await vi.waitFor(() => expect(router.path).toBe('/servers'));
  });

  it('asks before a page with changes is left, and not about its own query', async () => {
    await router.go('/profile');
    const guard = vi.fn(() => Promise.resolve(false));
    const unguard = router.guard(guard);
    router.setQuery({ tab: 'x' });
    expect(guard).not.toHaveBeenCalled();
    await router.go('/servers');
    expect([router.path, guard.mock.calls.length]).toEqual(['/profile', 1]);
    unguard();
    await router.go('/servers');
    expect(router.path).toBe('/servers');
  });

  it('does not ask twice about what may be left', async () => {
    await router.go('/profile');
    const guard = vi.fn(() => true);
    router.guard(guard);
    await router.go('/servers');
    await router.go('/');
    expect(guard).toHaveBeenCalledTimes(1);
  });
});
