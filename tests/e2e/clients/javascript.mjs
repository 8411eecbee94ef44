// The unmodified npm package `centrifuge`. The socket under it is watched for what the SDK keeps to itself.

import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

import { Client, Refused } from "./client.mjs";

export class JavaScriptClient extends Client {
  sdk = "JavaScript";

  /** What came over the sockets, frame by frame. */
  frames = [];
  /** What went out. */
  sent = [];
  /** How the sockets ended. */
  closes = [];

  constructor(url, options = {}) {
    super();
    const client = this;
    class Watched extends WebSocket {
      constructor(address, protocols) {
        super(address, protocols, options.socket);
        this.addEventListener("message", (event) => client.frames.push(event.data));
        this.addEventListener("close", (event) => client.closes.push({ code: event.code, reason: event.reason }));
      }

      send(data, ...rest) {
        client.sent.push(data);
        super.send(data, ...rest);
      }
    }
    this.centrifuge = new Centrifuge(url, { websocket: Watched, maxReconnectDelay: 2000, ...options.centrifuge });
    for (const kind of ["connecting", "connected", "disconnected", "error"]) {
      this.centrifuge.on(kind, ({ client: id, ...context }) => this.events.push({ kind, id, ...context }));
    }
  }

  open() {
    this.centrifuge.connect();
    return this;
  }

  /** The node, as the last connect reply names it. */
  get node() {
    const replies = this.frames.flatMap((frame) => frame.split("\n")).map((line) => JSON.parse(line));
    return replies.findLast((reply) => reply.connect)?.connect.node;
  }

  async subscribe(channel, { joinLeave = false } = {}) {
    // A channel that is subscribed to again has been confirmed before.
    const count = this.of("subscribed", channel).length + 1;
    const subscription = this.centrifuge.newSubscription(channel, { joinLeave });
    for (const kind of ["subscribing", "subscribed", "unsubscribed", "publication", "join", "leave"]) {
      subscription.on(kind, (context) => this.events.push({ kind, channel, ...context }));
    }
    const refused = new Promise((_, reject) => {
      subscription.on("error", ({ error }) => reject(new Refused(error)));
      subscription.on("unsubscribed", ({ code, reason }) => reject(new Refused({ code, message: reason })));
    });
    refused.catch(() => {});
    subscription.subscribe();
    await Promise.race([this.event("subscribed", channel, { count }), refused]);
    return subscription;
  }

  async unsubscribe(channel) {
    const subscription = this.centrifuge.getSubscription(channel);
    subscription.unsubscribe();
    this.centrifuge.removeSubscription(subscription);
  }

  publish(channel, data) {
    return answered(this.centrifuge.publish(channel, data));
  }

  history(channel) {
    return answered(this.centrifuge.history(channel, { limit: 1 }));
  }

  presence(channel) {
    return answered(this.centrifuge.presence(channel));
  }

  presenceStats(channel) {
    return answered(this.centrifuge.presenceStats(channel));
  }

  rpc(method, data) {
    return answered(this.centrifuge.rpc(method, data));
  }

  async close() {
    this.centrifuge.disconnect();
  }
}

async function answered(promise) {
  try {
    return await promise;
  } catch (error) {
    throw error.code === undefined ? error : new Refused(error);
  }
}
