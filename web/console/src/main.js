// The page: its texts, its buttons, and when it reconnects.
import { Link } from './link.js';

const $ = (id) => document.getElementById(id);
const link = new Link();
let view = null;
let retries = 0;
let retry = 0;

/** After these it reconnects without asking: the network or the server will be back in a moment. */
const BACK_SOON = new Set([1001, 1006, 1012, 4000, 4001, 4500, 4502]);
/** After these, as after those above, the user may reconnect. */
const ON_REQUEST = new Set([1000, 4409]);
/** Seconds between attempts; their number is the number of attempts. */
const PAUSES = [0.5, 1, 2, 3, 5, 5, 5, 8, 8, 8, 8, 10, 10, 10];

const TITLES = {
  1009: 'The message was too large',
  4000: 'The console was closed',
  4001: 'The server is not running',
  4502: 'The host could not open the console',
  4401: 'This link is no longer valid',
  4402: 'You were signed out',
  4403: 'You no longer have access',
  4404: 'This server no longer exists',
  4408: 'Closed after inactivity',
  4409: 'Opened somewhere else',
  4410: 'Time limit reached',
  4429: 'Too many consoles',
};

function status(state, words) {
  $('status').dataset.state = state;
  $('words').textContent = words;
}

function notice(title, words, again) {
  $('notice-title').textContent = title;
  $('notice-words').textContent = words;
  $('again').hidden = !again;
  $('again').textContent = again || '';
  $('notice').hidden = false;
  if (again) $('again').focus();
}

function connect() {
  clearTimeout(retry);
  status('busy', retries ? 'Reconnecting…' : 'Connecting…');
  link.connect(view?.size() ?? guess());
}

/** An estimate of the terminal's size before it exists; it reports its actual size once it does. */
function guess() {
  const { clientWidth, clientHeight } = $('stage');
  return { columns: Math.max(20, Math.floor(clientWidth / 9)), rows: Math.max(5, Math.floor(clientHeight / 18)) };
}

function theme() {
  const system = matchMedia('(prefers-color-scheme: light)').matches ? 'light' : 'dark';
  return localStorage.getItem('innkeeper-console-theme') ?? system;
}

function applyTheme() {
  document.documentElement.dataset.theme = theme();
  view?.setTheme(theme());
}

const waiting = [];
let opening = false;

link.addEventListener('ready', async ({ detail: { kind, server } }) => {
  retries = 0;
  $('notice').hidden = true;
  $('name').textContent = server.name;
  $('number').textContent = `Server ${server.id} · number ${server.vmid}`;
  document.title = `${server.name} · console`;
  for (const button of document.querySelectorAll('[data-for]')) button.hidden = button.dataset.for !== kind;
  // A text console keeps its contents; a graphical one is opened again.
  if (view?.kind === kind && kind === 'text') {
    view.renew();
    link.resize(view.size());
  } else {
    opening = true;
    view?.close();
    const { open } = kind === 'text' ? await import('./terminal.js') : await import('./screen.js');
    view = open($('stage'), link, theme());
    opening = false;
    if (kind === 'text') {
      link.resize(view.size());
      view.onSelection(() => {
        $('copy').disabled = !view.hasSelection();
      });
    } else {
      void view.failed.then((words) => notice('The graphical console can’t be shown', words));
    }
    for (const bytes of waiting.splice(0)) view.show(bytes);
  }
  for (const id of ['paste', 'keys']) $(id).disabled = false;
  status('good', kind === 'text' ? 'Connected. Press Enter if nothing appears.' : 'Connected');
  view.focus();
});

link.addEventListener('data', ({ detail }) => {
  if (opening || !view) waiting.push(detail);
  else view.show(detail);
});

link.addEventListener('closed', ({ detail: { code, reason } }) => {
  for (const id of ['paste', 'keys']) $(id).disabled = true;
  if (view?.kind === 'screen') {
    view.close();
    view = null;
  }
  const title = TITLES[code] ?? 'The connection was lost';
  const words = reason || 'The service can’t be reached. Your server keeps running.';
  if (link.hasTicket && BACK_SOON.has(code) && retries < PAUSES.length) {
    const pause = PAUSES[retries];
    retries += 1;
    status('busy', `${title}. Reconnecting…`);
    if (retries > 2) notice(title, `${words} We keep trying.`, 'Try now');
    retry = setTimeout(connect, pause * 1000);
    return;
  }
  status('bad', 'Not connected');
  const back = link.hasTicket && (BACK_SOON.has(code) || ON_REQUEST.has(code));
  notice(title, back ? words : withPanel(words), back && (code === 4409 ? 'Use it here' : 'Reconnect'));
});

/** Adds where to go from here, unless the text already says so. */
function withPanel(words) {
  return words.includes('panel') ? words : `${words} Open the console again from the panel.`;
}

$('again').addEventListener('click', () => {
  retries = 0;
  $('notice').hidden = true;
  connect();
});
$('copy').addEventListener('click', () => view?.copy());
$('paste').addEventListener('click', async () => {
  try {
    view?.paste(await navigator.clipboard.readText());
  } catch {
    status('good', 'Your browser does not allow this button to paste: press Ctrl+Shift+V (⌘V).');
  }
  view?.focus();
});
$('keys').addEventListener('click', () => view?.ctrlAltDel());
$('smaller').addEventListener('click', () => view?.zoom(-1));
$('larger').addEventListener('click', () => view?.zoom(1));
$('theme').addEventListener('click', () => {
  localStorage.setItem('innkeeper-console-theme', theme() === 'dark' ? 'light' : 'dark');
  applyTheme();
  view?.focus();
});
$('full').addEventListener('click', async () => {
  if (document.fullscreenElement) await document.exitFullscreen();
  else await document.documentElement.requestFullscreen();
  view?.focus();
});
matchMedia('(prefers-color-scheme: light)').addEventListener('change', applyTheme);

applyTheme();
link.takeTicketFrom(location);
// A new link was opened in a tab that already shows a console.
addEventListener('hashchange', () => location.reload());
if (link.hasTicket) {
  connect();
} else {
  status('bad', 'Not connected');
  notice('No console to open', 'Open a server’s console from the panel: the link works once, within half a minute.');
}
