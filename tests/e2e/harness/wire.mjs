// A line between a program and what it speaks to, to be cut, silenced and mended: a TCP relay on a port of its own.

import net from "node:net";

/** How much of what a connection's opener says is remembered, to know connections by. */
const SAID_BYTES = 16_384;

function waysOf({ ends: [opener, target] }) {
  return [[opener, target], [target, opener]];
}

export class Wire {
  /** `address` is host:port of where it leads. */
  constructor(address) {
    const [host, port] = address.split(":");
    this.target = { host, port: Number(port) };
    this.pairs = new Set();
    this.waiting = new Set();
    this.isCut = false;
    this.isSilent = false;
  }

  async start() {
    this.server = net.createServer((opener) => {
      opener.on("error", () => {});
      if (this.isCut) {
        opener.destroy();
      } else if (this.isSilent) {
        opener.pause();
        this.waiting.add(opener);
        opener.on("close", () => this.waiting.delete(opener));
      } else {
        this.join(opener);
      }
    });
    await new Promise((resolve, reject) => this.server.once("error", reject).listen(0, "127.0.0.1", resolve));
    this.address = `127.0.0.1:${this.server.address().port}`;
    this.url = `ws://${this.address}/connection/websocket`;
    return this;
  }

  join(opener) {
    const pair = { ends: [opener, net.connect(this.target)], said: "", isSilent: false };
    this.pairs.add(pair);
    opener.on("data", (bytes) => {
      if (pair.said.length < SAID_BYTES) pair.said += bytes.toString("latin1");
    });
    for (const [from, to] of waysOf(pair)) {
      from.on("error", () => {});
      from.on("close", () => {
        // Nor does a line that carries nothing carry an end.
        if (pair.isSilent) return;
        this.pairs.delete(pair);
        to.destroy();
      });
      from.pipe(to);
    }
  }

  /** Ends all connections; new ones fail until it is mended. */
  cut() {
    this.isCut = true;
    for (const pair of this.pairs) for (const socket of pair.ends) socket.resetAndDestroy();
  }

  /**
   * Carries nothing more, in either direction, and closes nothing, until it is mended. With `which` only for the
   * connections that it picks by what their openers have said so far; new ones work then. The number of those.
   */
  silence(which) {
    this.isSilent = which === undefined;
    const picked = [...this.pairs].filter((pair) => !which || which(pair.said));
    for (const pair of picked) {
      pair.isSilent = true;
      for (const [from, to] of waysOf(pair)) {
        from.unpipe(to);
        from.pause();
      }
    }
    return picked.length;
  }

  /** New connections work again, and what was kept back comes late, as after a cut of the network. */
  mend() {
    this.isCut = false;
    this.isSilent = false;
    for (const opener of this.waiting) this.join(opener);
    this.waiting.clear();
    for (const pair of this.pairs) {
      if (!pair.isSilent) continue;
      pair.isSilent = false;
      for (const [from, to] of waysOf(pair)) {
        if (from.destroyed) {
          this.pairs.delete(pair);
          to.destroy();
        } else {
          from.pipe(to);
        }
      }
    }
  }

  async close() {
    this.cut();
    for (const opener of this.waiting) opener.destroy();
    await new Promise((resolve) => { this.server.close(resolve); });
  }
}
