// aedes, a broker, on two ports of loopback (TCP and WebSocket) for one user with one password:
// `node aedes.mjs PORT WS_PORT USER PASSWORD`; says `ready` on stdout.

import { createServer as createHttpServer } from "node:http";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { pathToFileURL } from "node:url";

const { resolve } = createRequire(process.env.INTEROP_NODE + "/");
const { Aedes } = await import(pathToFileURL(resolve("aedes")));
const { default: ws } = await import(pathToFileURL(resolve("ws")));

const [port, wsPort, user, password] = process.argv.slice(2);
// Its default of 42 is less than what scenarios queue.
const broker = await Aedes.createBroker({ queueLimit: 10000 });
broker.authenticate = (_client, name, shown, done) => {
  const allowed = name === user && String(shown) === password;
  done(allowed ? null : Object.assign(new Error("refused"), { returnCode: 4 }), allowed);
};

const listening = (server, at) => new Promise((done) => server.listen(at, "127.0.0.1", done));
await listening(createServer(broker.handle), port);
const http = createHttpServer();
new ws.WebSocketServer({ server: http }).on("connection", (socket, request) => {
  broker.handle(ws.createWebSocketStream(socket), request);
});
await listening(http, wsPort);
console.log("ready");
