import { readFileSync } from 'node:fs';
import type { Plugin } from 'vite';

const SOURCE = 'src/theme.js';

/** Puts the theme's script into the head as a file that blocks, so that no page is first shown in the wrong colours. */
export function themeScript(): Plugin {
  let building = false;
  return {
    name: 'theme-script',
    configResolved({ command }) {
      building = command === 'build';
    },
    buildStart() {
      if (building) this.emitFile({ type: 'asset', name: 'theme.js', source: readFileSync(SOURCE, 'utf8') });
    },
    transformIndexHtml: {
      order: 'post',
      handler(_html, { bundle = {} }) {
        const built = Object.values(bundle).find((file) => file.type === 'asset' && file.names.includes('theme.js'));
        return [{ tag: 'script', attrs: { src: `/${built?.fileName ?? SOURCE}` }, injectTo: 'head-prepend' }];
      },
    },
  };
}
