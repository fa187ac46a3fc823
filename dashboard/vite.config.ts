import { paraglideVitePlugin } from '@inlang/paraglide-js';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';
import { licences } from './build/licences.ts';
import { themeScript } from './build/theme-script.ts';

export default defineConfig({
  plugins: [
    // Tests use what `npm run texts` wrote: its watchers would keep them from ending.
    !process.env.VITEST &&
      paraglideVitePlugin({
        project: './project.inlang',
        outdir: './src/i18n/texts',
        strategy: ['localStorage', 'preferredLanguage', 'baseLocale'],
        emitReadme: false,
        emitPrettierIgnore: false,
      }),
    svelte(),
    themeScript(),
    licences(),
  ],
  build: {
    target: ['chrome111', 'firefox115', 'safari16.4'],
    // The page's policy allows neither scripts nor styles nor fonts inside of others.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // Read by the size tests; not part of the app.
    manifest: true,
    reportCompressedSize: false,
  },
});
