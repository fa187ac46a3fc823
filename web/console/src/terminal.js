// A text console.
import { FitAddon } from '@xterm/addon-fit';
import { WebLinksAddon } from '@xterm/addon-web-links';
import { Terminal } from '@xterm/xterm';

const THEMES = {
  dark: {
    background: '#0e1513', foreground: '#dfe8e4', cursor: '#58b89c', cursorAccent: '#0e1513',
    selectionBackground: '#2d5a4e', black: '#1d2926', red: '#f07f74', green: '#5fc795', yellow: '#e6b450',
    blue: '#6aa9e9', magenta: '#c792ea', cyan: '#5cc8c8', white: '#cfd9d5', brightBlack: '#6c7f78',
    brightRed: '#ff9d93', brightGreen: '#83dfb1', brightYellow: '#f5cd7d', brightBlue: '#92c4f7',
    brightMagenta: '#dcb3f5', brightCyan: '#86e0e0', brightWhite: '#ffffff',
    scrollbarSliderBackground: '#ffffff14', scrollbarSliderHoverBackground: '#ffffff2e', scrollbarSliderActiveBackground: '#ffffff40',
  },
  light: {
    background: '#fbfcfb', foreground: '#1d2926', cursor: '#2f6f5e', cursorAccent: '#fbfcfb',
    selectionBackground: '#bfe0d5', black: '#1d2926', red: '#b3261e', green: '#1a7f4b', yellow: '#8a5a00',
    blue: '#1f5fae', magenta: '#8a3ea8', cyan: '#0d7377', white: '#5d6d68', brightBlack: '#74857f',
    brightRed: '#c83b31', brightGreen: '#24935a', brightYellow: '#a06b00', brightBlue: '#2c74c9',
    brightMagenta: '#a255c0', brightCyan: '#12888c', brightWhite: '#2c3a36',
    scrollbarSliderBackground: '#0000001a', scrollbarSliderHoverBackground: '#00000033', scrollbarSliderActiveBackground: '#0000004d',
  },
};

/** Shows a terminal in `stage`, connected to `link`. */
export function open(stage, link, theme) {
  const room = Object.assign(document.createElement('div'), { className: 'terminal-room' });
  stage.replaceChildren(room);
  const terminal = new Terminal({
    fontFamily: 'ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace',
    fontSize: Number(localStorage.getItem('innkeeper-console-font')) || 15,
    cursorBlink: true,
    scrollback: 5000,
    theme: THEMES[theme],
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.loadAddon(
    // Opens links in a new tab that can't reach back to this page.
    new WebLinksAddon((_, address) => window.open(address, '_blank', 'noopener,noreferrer')),
  );
  terminal.open(room);
  terminal.textarea.setAttribute('aria-label', 'Type into the server’s terminal');
  fit.fit();

  const encoder = new TextEncoder();
  terminal.onData((text) => link.send(encoder.encode(text)));
  terminal.onBinary((text) => link.send(Uint8Array.from(text, (char) => char.charCodeAt(0))));
  terminal.onResize(({ cols, rows }) => link.resize({ columns: cols, rows }));
  terminal.attachCustomKeyEventHandler((event) => {
    if (event.type !== 'keydown' || !event.ctrlKey || !event.shiftKey) return true;
    if (event.code === 'KeyC') {
      event.preventDefault();
      void self.copy();
      return false;
    }
    // The browser pastes on its own, and the terminal receives that.
    return event.code !== 'KeyV';
  });
  const watcher = new ResizeObserver(() => fit.fit());
  watcher.observe(room);

  const self = {
    kind: 'text',
    terminal,
    size: () => ({ columns: terminal.cols, rows: terminal.rows }),
    show: (bytes) => terminal.write(bytes),
    focus: () => terminal.focus(),
    hasSelection: () => terminal.hasSelection(),
    onSelection: (heard) => terminal.onSelectionChange(heard),
    copy: async () => {
      if (!terminal.hasSelection()) return;
      await put(terminal.getSelection());
      terminal.focus();
    },
    paste: (text) => terminal.paste(text),
    /** A new connection: resets the old one's modes (mouse, alternate screen), but keeps its text. */
    renew: () => {
      // Leaving the alternate screen moves the cursor even if it was never entered.
      if (terminal.buffer.active.type === 'alternate') terminal.write('\x1b[?1049l');
      terminal.write('\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?2004l\x1b[?25h\x1b[0m');
    },
    setTheme: (name) => {
      terminal.options.theme = THEMES[name];
    },
    zoom: (by) => {
      const font = Math.min(28, Math.max(9, terminal.options.fontSize + by));
      terminal.options.fontSize = font;
      localStorage.setItem('innkeeper-console-font', String(font));
      fit.fit();
    },
    close: () => {
      watcher.disconnect();
      terminal.dispose();
    },
  };
  return self;
}

/** Copies text to the clipboard, even if the page was loaded without TLS and can't use the newer API. */
async function put(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = Object.assign(document.createElement('textarea'), { value: text, readOnly: true });
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
}
