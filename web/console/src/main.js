// The page: what it says, its buttons, and when it connects again.
import { Link } from './link.js';

const $ = (id) => document.getElementById(id);
const link = new Link();
let view = null;
let retries = 0;
let retry = 0;

/** After these nothing is asked: the network or the server will be back in a moment. */
const BACK_SOON = new Set([1001, 1006, 1012, 4000, 4001, 4500, 4502]);
/** After these, and those, one may come back. */
const ON_REQUEST = new Set([1000, 4409]);
/** Seconds between tries, and how many there are. */
const PAUSES = [0.5, 1, 2, 3, 5, 5, 5, 8, 8, 8, 8, 10, 10, 10];

const TITLES = {
  1009: 'That was too much at once',
  4000: 'The console was closed',
  4001: 'The server is not running',
  4502: 'The host did not open the console',
  4401: 'This link is no longer good',
  4402: 'You were signed out',
  4403: 'No access any more',
  4404: 'This server is gone',
  4408: 'Closed for safety',
  4409: 'Opened in another place',
  4410: 'Time is over',
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
  status('busy', retries ? 'Connecting again…' : 'Connecting…');
  link.connect(view?.size() ?? guess());
}

/** The terminal's size before there is one; it says the right one as soon as it is there. */
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
  // A terminal stays with what it shows; a screen starts anew.
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
      void view.failed.then((words) => notice('The screen can’t be shown', words));
    }
    for (const bytes of waiting.splice(0)) view.show(bytes);
  }
  for (const id of ['paste', 'keys']) $(id).disabled = false;
  status('good', kind === 'text' ? 'Connected. Press Enter if nothing shows.' : 'Connected');
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
  const words = reason || 'The service can’t be reached. What runs on the server goes on.';
  if (link.hasTicket && BACK_SOON.has(code) && retries < PAUSES.length) {
    const pause = PAUSES[retries];
    retries += 1;
    status('busy', `${title}. Connecting again…`);
    if (retries > 2) notice(title, `${words} We keep trying.`, 'Try now');
    retry = setTimeout(connect, pause * 1000);
    return;
  }
  status('bad', 'Not connected');
  const back = link.hasTicket && (BACK_SOON.has(code) || ON_REQUEST.has(code));
  notice(title, back ? words : withPanel(words), back && (code === 4409 ? 'Use it here' : 'Connect again'));
});

/** Where to go from here, unless that was said. */
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
    status('good', 'Your browser does not let this button paste: press Ctrl+Shift+V (⌘V).');
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
// A link that is opened in a tab which shows a console already.
addEventListener('hashchange', () => location.reload());
if (link.hasTicket) {
  connect();
} else {
  status('bad', 'Not connected');
  notice('No console here', 'Open a server’s console from the panel: its link works once, for half a minute.');
}
