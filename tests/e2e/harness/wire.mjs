// The line between a client and a gateway, to be cut and mended: a TCP relay on a port of its own.

import net from "node:net";

export class Wire {
  /** `address` is host:port of the gateway's client port. */
  constructor(address) {
    const [host, port] = address.split(":");
    this.target = { host, port: Number(port) };
    this.pairs = new Set();
    this.isCut = false;
  }

  async start() {
    this.server = net.createServer((client) => {
      if (this.isCut) {
        client.destroy();
        return;
      }
      const gateway = net.connect(this.target);
      const pair = [client, gateway];
      this.pairs.add(pair);
      for (const [from, to] of [[client, gateway], [gateway, client]]) {
        from.on("error", () => {});
        from.on("close", () => {
          this.pairs.delete(pair);
          to.destroy();
        });
        from.pipe(to);
      }
    });
    await new Promise((resolve, reject) => this.server.once("error", reject).listen(0, "127.0.0.1", resolve));
    this.address = `127.0.0.1:${this.server.address().port}`;
    this.url = `ws://${this.address}/connection/websocket`;
    return this;
  }

  /** Ends all connections; new ones fail until it is mended. */
  cut() {
    this.isCut = true;
    for (const pair of this.pairs) for (const socket of pair) socket.resetAndDestroy();
  }

  mend() {
    this.isCut = false;
  }

  async close() {
    this.cut();
    await new Promise((resolve) => { this.server.close(resolve); });
  }
}
