// What a browser has to fetch, by bytes: the build in dist/ must be there.
import { readFileSync, readdirSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';

interface Chunk {
  file: string;
  src?: string;
  css?: string[];
  imports?: string[];
  isEntry?: boolean;
}

const FIRST_PAGE = 130_000;
const EVERYTHING = 250_000;

const manifest = JSON.parse(readFileSync('dist/.vite/manifest.json', 'utf8')) as Record<string, Chunk>;
const sizes = new Map<string, number>();

function size(file: string): number {
  const known = sizes.get(file) ?? gzipSync(readFileSync(`dist/${file}`), { level: 6 }).length;
  sizes.set(file, known);
  return known;
}

/** A chunk's files, and those of what it needs at once. */
function files(key: string, found = new Set<string>()): Set<string> {
  const chunk = manifest[key];
  if (!chunk) throw new Error(`${key} is not in the manifest`);
  if (found.has(chunk.file)) return found;
  found.add(chunk.file);
  for (const css of chunk.css ?? []) found.add(css);
  for (const other of chunk.imports ?? []) files(other, found);
  return found;
}

function total(names: Iterable<string>): number {
  return [...names].reduce((sum, name) => sum + size(name), 0);
}

const theme = readdirSync('dist/assets')
  .filter((name) => /^theme-.*\.js$/.test(name))
  .map((name) => `assets/${name}`);
const socket = Object.keys(manifest).find((key) => key.includes('socket.io-client')) ?? '';
const page = (...keys: string[]) =>
  total(new Set(['index.html', ...theme, ...['index.html', ...keys].flatMap((key) => [...files(key)])]));

describe('sizes, compressed', () => {
  it('of the first page', () => {
    const login = page('src/pages/Login.svelte');
    const servers = page('src/Shell.svelte', 'src/pages/Servers.svelte', socket);
    const overview = page('src/Shell.svelte', 'src/pages/Overview.svelte', socket);
    expect({ login, servers, overview, fit: Math.max(login, servers, overview) <= FIRST_PAGE }).toMatchObject({
      fit: true,
    });
  });

  it('of everything', () => {
    const all = readdirSync('dist/assets').filter((name) => /\.(?:js|css|svg)$/.test(name));
    expect(total(['index.html', ...all.map((name) => `assets/${name}`)])).toBeLessThanOrEqual(EVERYTHING);
  });

  it('count nothing that is inline', () => {
    const html = readFileSync('dist/index.html', 'utf8');
    expect(html).not.toMatch(/<style|style=|<script(?![^>]*\bsrc=)|\bon\w+=|(?:src|href)="(?:https?:|data:)/);
    expect(theme).toHaveLength(1);
    expect(html).toContain(`src="/${theme[0]}"`);
  });
});
