import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

const css = readFileSync('src/tokens.css', 'utf8');
const blocks = [...css.matchAll(/(:root[^{]*)\{([^{}]*)\}/g)].map(([, selector = '', body = '']) => ({
  selector: selector.trim(),
  colours: Object.fromEntries(
    [...body.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)].map(([, name, value]) => [name, value]),
  ),
}));

function luminance(colour: string): number {
  const parts = [1, 3, 5].map((at) => {
    const part = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * (parts[0] ?? 0) + 0.7152 * (parts[1] ?? 0) + 0.0722 * (parts[2] ?? 0);
}

function contrast(one = '', other = ''): number {
  const [light = 0, dark = 0] = [luminance(one), luminance(other)].toSorted((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
}

const MEANINGS = ['running', 'busy', 'stopped', 'attention', 'failed'];
const texts: [string, string][] = [
  ...['page', 'surface', 'raised', 'press'].map((ground): [string, string] => ['ink', ground]),
  ...['page', 'surface', 'raised'].flatMap((ground) =>
    ['soft', 'accent', 'failed', ...MEANINGS].map((text): [string, string] => [text, ground]),
  ),
  ...MEANINGS.flatMap((meaning): [string, string][] => [
    [meaning, `${meaning}-ground`],
    ['ink', `${meaning}-ground`],
  ]),
  ['on-accent', 'accent'],
  ['on-accent', 'accent-press'],
];

describe('colours', () => {
  it('are of a light theme, the system’s dark one and the chosen dark one, which are the same', () => {
    expect(blocks).toHaveLength(3);
    expect(blocks[2]?.colours).toEqual(blocks[1]?.colours);
    expect(Object.keys(blocks[1]?.colours ?? {})).toEqual(Object.keys(blocks[0]?.colours ?? {}));
  });

  it.each(blocks.slice(0, 2))('of $selector can be read', ({ colours }) => {
    const faint = texts.filter(([text, ground]) => contrast(colours[text], colours[ground]) < 4.5);
    expect(faint).toEqual([]);
    // The edge of an input is what shows that it is one.
    expect(contrast(colours['edge-strong'], colours.surface)).toBeGreaterThanOrEqual(3);
  });
});
