// WebSocket echo on Bun (uWebSockets inside): the peer of `scripts/bench echo`.
// Every message comes back as it came; no compression, as in ours.
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.env.PORT ?? 0),
  fetch(request, server) {
    return server.upgrade(request) ? undefined : new Response("websocket only", { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    maxPayloadLength: 64 << 20,
    backpressureLimit: 64 << 20,
    idleTimeout: 0,
    message(socket, message) {
      socket.send(message);
    },
  },
});
console.log(`listening ${server.port}`);
