// A bare WebSocket that speaks in frames, for what no SDK would send.

import WebSocket from "ws";

import { until } from "../harness/poll.mjs";

export class RawClient {
  constructor(url, options = {}) {
    this.replies = [];
    this.frames = [];
    this.closed = null;
    this.socket = new WebSocket(url, options.protocols, options.socket);
    this.socket.on("message", (data) => {
      this.frames.push(data.toString());
      for (const line of data.toString().split("\n")) this.replies.push(JSON.parse(line));
    });
    this.socket.on("close", (code, reason) => { this.closed = { code, reason: reason.toString() }; });
    this.opened = new Promise((resolve, reject) => {
      this.socket.once("open", () => resolve(this));
      this.socket.once("error", reject);
    });
    this.opened.catch(() => {});
    this.next = 1;
  }

  /** Sends text as it is. */
  say(text) {
    this.socket.send(text);
  }

  /** Sends a command and waits for its reply. */
  async ask(command) {
    const id = this.next;
    this.next += 1;
    this.say(JSON.stringify({ id, ...command }));
    return until(`a reply to ${JSON.stringify(command)}`, () => this.replies.find((reply) => reply.id === id));
  }

  async connect() {
    await this.opened;
    const { connect } = await this.ask({ connect: {} });
    return connect;
  }

  async ended() {
    return until("the server closes", () => this.closed);
  }

  close() {
    this.socket.terminate();
  }
}
