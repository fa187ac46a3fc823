// A Socket.IO client driven by a test: commands are JSON lines on stdin, events are JSON lines on stdout. It ends with
// stdin.
//
//   node client.mjs <url>
//
//   {"do":"connect","token":"…"}      also: header (an Authorization header), transports, reconnection, auth (as it is)
//   {"do":"token","token":"…"}        the token to show at the next (re)connection
//   {"do":"subscribe","id":7}         also: ack (false: ask for none)
//   {"do":"unsubscribe","id":7}
//   {"do":"emit","event":"x","args":[…]}   also: ack (true: ask for one)
//   {"do":"drop"}                     cuts the connection below Socket.IO, as a network would
//   {"do":"disconnect"}
//   {"do":"crowd","token":"…","count":9}   opens this many more sockets, reported as crowd-in or crowd-out
//   {"do":"disperse"}                 closes them
//
//   {"event":"connect","id":"…"}  {"event":"connect_error","message":"…"}  {"event":"disconnect","reason":"…"}
//   {"event":"ack","of":"subscribe-server","args":[…]}  {"event":"server-stats","args":[…]}  …
//
// After a reconnection it subscribes to everything again, as any client should: the server sends the current state,
// whatever was missed in between. "remember": false in `connect` turns that off.
import { createInterface } from 'node:readline';
import { io } from 'socket.io-client';

const url = process.argv[2] ?? process.env.URL;
if (!url) {
  console.error('usage: node client.mjs <url>');
  process.exit(2);
}

let socket;
let token;
let crowd = [];
const subscribed = new Set();

const tell = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

function emit(event, args, ack = true) {
  if (!ack) {
    socket.emit(event, ...args);
    return;
  }
  socket.timeout(20_000).emit(event, ...args, (error, ...answer) => {
    tell({ event: error ? 'ack-timeout' : 'ack', of: event, args: error ? args : answer });
  });
}

const commands = {
  connect({ token: given, header, transports, reconnection = true, remember = true, auth }) {
    token = given;
    socket?.disconnect();
    socket = io(url, {
      forceNew: true,
      reconnection,
      reconnectionDelay: 100,
      reconnectionDelayMax: 500,
      ...(transports && { transports }),
      ...(header && { extraHeaders: { Authorization: header } }),
      auth: (done) => done(auth ?? (token === undefined ? {} : { token })),
    });
    socket.on('connect', () => {
      tell({ event: 'connect', id: socket.id, transport: socket.io.engine.transport.name });
      if (remember) for (const id of subscribed) emit('subscribe-server', [id]);
    });
    socket.on('connect_error', (error) => {
      tell({ event: 'connect_error', message: error.message, data: error.data ?? null, active: socket.active });
    });
    socket.on('disconnect', (reason) => tell({ event: 'disconnect', reason }));
    socket.onAny((event, ...args) => tell({ event, args }));
  },
  token({ token: given }) {
    token = given;
  },
  subscribe({ id, ack }) {
    subscribed.add(id);
    emit('subscribe-server', [id], ack);
  },
  unsubscribe({ id, ack }) {
    subscribed.delete(id);
    emit('unsubscribe-server', [id], ack);
  },
  emit({ event, args = [], ack = false }) {
    emit(event, args, ack);
  },
  drop() {
    socket.io.engine.close();
  },
  disconnect() {
    socket.disconnect();
  },
  crowd({ token: given, count }) {
    for (let n = 0; n < count; n += 1) {
      const one = io(url, { forceNew: true, reconnection: false, transports: ['websocket'], auth: { token: given } });
      one.on('connect', () => tell({ event: 'crowd-in' }));
      one.on('connect_error', (error) => tell({ event: 'crowd-out', message: error.message }));
      crowd.push(one);
    }
  },
  disperse() {
    for (const one of crowd) one.disconnect();
    crowd = [];
  },
};

const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => {
  if (!line.trim()) return;
  try {
    const command = JSON.parse(line);
    const run = commands[command.do];
    if (!run) throw new Error(`no such command: ${command.do}`);
    run(command);
  } catch (error) {
    tell({ event: 'command-error', message: String(error?.message ?? error), line });
  }
});
lines.on('close', () => {
  socket?.disconnect();
  process.exit(0);
});
