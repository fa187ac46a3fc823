// A graphical console.
import RFB from '@novnc/novnc';

const ENTER = 0xff0d;
const TAB = 0xff09;
/** Keys sent in one batch: the virtual keyboard is slow, and drops keys that come too fast. */
const KEYS_AT_ONCE = 8;

/** The part of the WebSocket interface that noVNC uses, for the binary messages of `link` only. */
class Channel {
  binaryType = 'arraybuffer';
  protocol = '';
  readyState = WebSocket.OPEN;
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;

  constructor(link) {
    this.link = link;
  }

  send(data) {
    this.link.send(data instanceof Uint8Array ? data : new Uint8Array(data.buffer ?? data, data.byteOffset, data.byteLength));
  }

  close() {
    this.readyState = WebSocket.CLOSED;
  }
}

/** Shows a graphical console in `stage`, connected to `link`. */
export function open(stage, link) {
  const room = Object.assign(document.createElement('div'), { className: 'screen-room' });
  stage.replaceChildren(room);
  const channel = new Channel(link);
  const rfb = new RFB(room, channel, { shared: true });
  rfb.scaleViewport = true;
  rfb.resizeSession = true;
  rfb.focusOnClick = true;
  rfb.background = 'transparent';
  const failed = new Promise((resolve) => {
    rfb.addEventListener('securityfailure', () => resolve('The console refused access.'));
    rfb.addEventListener('credentialsrequired', () => resolve('The console asks for a password that we don’t have.'));
  });

  // RFB always has traffic of its own; this reports that the user is active.
  let told = 0;
  const active = () => {
    if (Date.now() - told < 20_000) return;
    told = Date.now();
    link.active();
  };
  for (const event of ['keydown', 'pointerdown', 'pointermove', 'wheel']) room.addEventListener(event, active, true);

  return {
    kind: 'screen',
    rfb,
    failed,
    size: () => ({}),
    show: (bytes) => channel.onmessage?.({ data: bytes.buffer }),
    focus: () => rfb.focus(),
    /** A graphical console has no clipboard to paste into: the text is typed. */
    paste: async (text) => {
      active();
      const keys = [...text.replaceAll('\r\n', '\n')].map(keysym);
      for (let at = 0; at < keys.length; at += KEYS_AT_ONCE) {
        for (const key of keys.slice(at, at + KEYS_AT_ONCE)) rfb.sendKey(key, null);
        await new Promise((done) => setTimeout(done, 30));
      }
    },
    ctrlAltDel: () => {
      active();
      rfb.sendCtrlAltDel();
      rfb.focus();
    },
    setTheme: () => {},
    close: () => {
      rfb.disconnect();
      channel.onclose?.({ code: 1000, reason: '', wasClean: true });
    },
  };
}

/** The X11 keysym for a character. */
function keysym(char) {
  if (char === '\n') return ENTER;
  if (char === '\t') return TAB;
  const code = char.codePointAt(0);
  return code < 0x100 ? code : 0x01000000 | code;
}
