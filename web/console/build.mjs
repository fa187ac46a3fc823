// Builds the page into dist/: index.html and its assets, whose names contain a hash of their contents.
// The page is split, so that a text console does not load what only a graphical one needs.
import { readFile, rm, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { build } from 'esbuild';

await rm('dist', { recursive: true, force: true });
const { metafile } = await build({
  entryPoints: ['src/main.js', 'src/style.css', 'src/icon.svg'],
  bundle: true,
  splitting: true,
  format: 'esm',
  target: ['chrome111', 'firefox115', 'safari16.4'],
  minify: true,
  outdir: 'dist',
  entryNames: '[name]-[hash]',
  chunkNames: '[name]-[hash]',
  assetNames: '[name]-[hash]',
  loader: { '.svg': 'copy' },
  legalComments: 'none',
  metafile: true,
});

// Maps each source file's name to its output's name.
const made = Object.fromEntries(
  Object.entries(metafile.outputs)
    .filter(([, output]) => output.entryPoint)
    .map(([path, output]) => [basename(output.entryPoint), basename(path)]),
);
const html = await readFile('src/index.html', 'utf8');
await writeFile(
  'dist/index.html',
  html.replaceAll(/\{\{([\w.]+)\}\}/g, (_, name) => {
    if (!made[name]) throw new Error(`index.html names ${name}, which was not built`);
    return made[name];
  }),
);

// The licences of third-party code are shipped with it.
const licences = [];
for (const [folder, file] of [
  ['@xterm/xterm', 'LICENSE'],
  ['@xterm/addon-fit', 'LICENSE'],
  ['@xterm/addon-web-links', 'LICENSE'],
  ['@novnc/novnc', 'LICENSE.txt'],
  ['@novnc/novnc/vendor/pako', 'LICENSE'],
]) {
  licences.push(`${folder}\n\n${await readFile(`node_modules/${folder}/${file}`, 'utf8')}`);
}
const versions = ['@xterm/xterm', '@novnc/novnc'].map(async (name) => {
  const { version } = JSON.parse(await readFile(`node_modules/${name}/package.json`, 'utf8'));
  return `https://www.npmjs.com/package/${name}/v/${version}`;
});
licences.push(`Their sources, which are not changed here:\n\n${(await Promise.all(versions)).join('\n')}\n`);
await writeFile('dist/licences.txt', licences.join(`\n${'-'.repeat(80)}\n\n`));
