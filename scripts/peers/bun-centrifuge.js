// The part of the Centrifuge protocol that fan-out needs, on Bun's own publish/subscribe
// (uWebSockets inside): the peer of `scripts/bench fanout` and `idle`. Connect, subscribe and
// publish without history, presence or permissions, so it does less than a server for the
// protocol has to: a bar for the fan-out, not a product.
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
      const replies = [];
      for (const line of message.split("\n")) {
        const command = JSON.parse(line);
        if (command.publish) {
          const { channel, data } = command.publish;
          server.publish(channel, JSON.stringify({ push: { channel, pub: { data } } }));
          replies.push(`{"id":${command.id},"publish":{}}`);
        } else if (command.subscribe) {
          socket.subscribe(command.subscribe.channel);
          replies.push(`{"id":${command.id},"subscribe":{}}`);
        } else if (command.connect) {
          replies.push(`{"id":${command.id},"connect":{"client":"bun","version":"peer"}}`);
        }
      }
      if (replies.length > 0) socket.send(replies.join("\n"));
    },
  },
});
console.log(`listening ${server.port}`);
