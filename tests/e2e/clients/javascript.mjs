// The unmodified npm package `centrifuge`, in JSON and Protobuf, over WebSocket, SSE and HTTP-streaming. Where it has a
// WebSocket, that is watched for what the SDK keeps to itself.

import { Centrifuge } from "centrifuge";
import { Centrifuge as CentrifugeProtobuf } from "centrifuge/build/protobuf";
import { EventSource } from "eventsource";
import WebSocket from "ws";

import { Client, Refused } from "./client.mjs";

const CLIENT_EVENTS = ["connecting", "connected", "disconnected", "error", "message"];
const SERVER_SIDE_EVENTS = ["subscribing", "subscribed", "unsubscribed", "publication", "join", "leave"];

export class JavaScriptClient extends Client {
  /** What came over the sockets, frame by frame. */
  frames = [];
  /** What went out. */
  sent = [];
  /** How the sockets ended. */
  closes = [];

  /** `options.protobuf`, `options.transport` (websocket, sse, http_stream), `options.centrifuge` for the SDK. */
  constructor(url, options = {}) {
    super();
    const { protobuf = false, transport = "websocket" } = options;
    this.sdk = `JavaScript${protobuf ? " Protobuf" : ""}${transport === "websocket" ? "" : ` ${transport}`}`;
    this.isProtobuf = protobuf;
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
    const base = url.replace(/^ws/, "http").replace(/\/connection\/websocket.*/, "");
    const endpoint = transport === "websocket" ? url : [{ transport, endpoint: `${base}/connection/${transport}` }];
    const Sdk = protobuf ? CentrifugeProtobuf : Centrifuge;
    this.centrifuge = new Sdk(endpoint, {
      websocket: Watched, eventsource: EventSource, emulationEndpoint: `${base}/emulation`,
      minReconnectDelay: 100, maxReconnectDelay: 1000, ...options.centrifuge,
    });
    for (const kind of CLIENT_EVENTS) {
      this.centrifuge.on(kind, ({ client: id, ...context }) => this.events.push({ kind, id, ...this.read(context) }));
    }
    for (const kind of SERVER_SIDE_EVENTS) {
      this.centrifuge.on(kind, (context) => this.events.push({ kind, isServerSide: true, ...this.read(context) }));
    }
  }

  open() {
    this.centrifuge.connect();
    return this;
  }

  /** The node, as the last connect reply names it (JSON over WebSocket). */
  get node() {
    const replies = this.frames.flatMap((frame) => frame.split("\n")).map((line) => JSON.parse(line));
    return replies.findLast((reply) => reply.connect)?.connect.node;
  }

  /** What the SDK takes for this value. */
  value(value) {
    return this.isProtobuf ? new TextEncoder().encode(JSON.stringify(value)) : value;
  }

  /** What its user gets, as a value. */
  read(context) {
    if (!this.isProtobuf) return context;
    const value = (bytes) => (bytes?.length ? JSON.parse(new TextDecoder().decode(bytes)) : undefined);
    const info = context.info && { ...context.info, connInfo: value(context.info.connInfo), chanInfo: value(context.info.chanInfo) };
    return { ...context, ...("data" in context ? { data: value(context.data) } : {}), ...(info ? { info } : {}) };
  }

  async subscribe(channel, options = {}) {
    // A channel that is subscribed to again has been confirmed before.
    const count = this.of("subscribed", channel).length + 1;
    const subscription = this.centrifuge.newSubscription(channel, { minResubscribeDelay: 50, maxResubscribeDelay: 500, ...options });
    for (const kind of SERVER_SIDE_EVENTS) {
      subscription.on(kind, (context) => this.events.push({ kind, ...this.read(context), channel }));
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
    return answered(this.centrifuge.publish(channel, this.value(data)));
  }

  async history(channel, options = { limit: 1 }) {
    const page = await answered(this.centrifuge.history(channel, options));
    return { ...page, publications: page.publications.map((publication) => this.read(publication)) };
  }

  async presence(channel) {
    const { clients } = await answered(this.centrifuge.presence(channel));
    return { clients: Object.fromEntries(Object.entries(clients).map(([id, info]) => [id, this.read({ info }).info])) };
  }

  presenceStats(channel) {
    return answered(this.centrifuge.presenceStats(channel));
  }

  async rpc(method, data) {
    return this.read(await answered(this.centrifuge.rpc(method, this.value(data))));
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
