// The WebSocket to the service. docs/console.md describes the messages.

/** The maximum size of a message that we send; the service accepts up to 64 KiB. */
const PIECE = 16 * 1024;
/** Where the ticket for reconnecting is stored: in this tab only, so that it survives a reload. */
const KEPT = 'innkeeper-console-ticket';

/** A console, which may take several connections. Events: `ready`, `data`, `closed`. */
export class Link extends EventTarget {
  #socket = null;

  /** Whether there is a ticket to connect with. */
  get hasTicket() {
    return sessionStorage.getItem(KEPT) !== null;
  }

  /** A ticket in the URL is newer than a stored one. It is removed from the URL and the history. */
  takeTicketFrom(location) {
    const ticket = location.hash.slice(1);
    if (!ticket) return;
    sessionStorage.setItem(KEPT, ticket);
    history.replaceState(null, '', location.pathname);
  }

  /** Connects with the ticket, which works only once. */
  connect(size) {
    const ticket = sessionStorage.getItem(KEPT);
    const url = new URL('socket', location.href);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    const socket = new WebSocket(url);
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => {
      sessionStorage.removeItem(KEPT);
      socket.send(JSON.stringify({ type: 'open', ticket, ...size }));
    };
    socket.onmessage = ({ data }) => {
      if (typeof data === 'string') this.#hear(JSON.parse(data));
      else this.#tell('data', new Uint8Array(data));
    };
    socket.onclose = ({ code, reason }) => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      this.#tell('closed', { code, reason });
    };
    this.#socket = socket;
  }

  /** Sends bytes to the server's console; does nothing without a connection. */
  send(bytes) {
    for (let at = 0; at < bytes.length && this.isOpen; at += PIECE) this.#socket.send(bytes.subarray(at, at + PIECE));
  }

  /** Reports the terminal's new size. */
  resize(size) {
    this.#say({ type: 'resize', ...size });
  }

  /** Reports that the user is active at a graphical console. */
  active() {
    this.#say({ type: 'active' });
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  #say(message) {
    if (this.isOpen) this.#socket.send(JSON.stringify(message));
  }

  #hear(message) {
    if (message.type === 'ticket') sessionStorage.setItem(KEPT, message.ticket);
    else if (message.type === 'ready') this.#tell('ready', message);
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
