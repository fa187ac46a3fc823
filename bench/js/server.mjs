// The peer of the live view in Node: subscribing joins a server's room. A number on stdin starts a cycle: each room is
// sent its message from the file, with that number as uptime.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Server } from "socket.io";

const messages = Object.values(JSON.parse(readFileSync(process.argv[2], "utf8")));
const http = createServer();
const io = new Server(http, { transports: ["websocket"], pingInterval: 25000, pingTimeout: 20000, serveClient: false });

io.on("connection", (socket) => {
  socket.on("subscribe-server", (serverId, ack) => {
    socket.join(`server:${serverId}`);
    ack({ status: "success", serverId });
  });
});

createInterface({ input: process.stdin }).on("line", (cycle) => {
  for (const message of messages) {
    message.stats.data.uptime = Number(cycle);
    io.to(`server:${message.serverId}`).emit("server-stats", message);
  }
});

http.listen(0, "127.0.0.1", () => console.log(http.address().port));
