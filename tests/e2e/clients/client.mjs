// What both SDKs' clients have in common, so that every promise is checked with each of them:
//   open, connected, subscribe, publish, unsubscribe, history, presence, presenceStats, rpc, close;
//   `events`: everything the SDK told, in order: {kind, channel?, data?, info?, code?, reason?}.

import { until } from "../harness/poll.mjs";

/** An error reply, as the SDK hands it to its user. */
export class Refused extends Error {
  constructor({ code, message }) {
    super(`${code} ${message}`);
    this.code = code;
  }
}

export class Client {
  constructor() {
    this.events = [];
  }

  /** The id that the server gave it last. */
  get id() {
    return this.of("connected").at(-1)?.id;
  }

  of(kind, channel) {
    return this.events.filter((event) => event.kind === kind && (channel === undefined || event.channel === channel));
  }

  /** The data of all publications received in a channel. */
  received(channel) {
    return this.of("publication", channel).map((event) => event.data);
  }

  /** Waits for the `count`th event of a kind. */
  async event(kind, channel, { count = 1, ms = 10_000 } = {}) {
    const name = `${this.sdk}: ${count} x ${kind}${channel ? ` of ${channel}` : ""}`;
    return until(name, () => this.of(kind, channel)[count - 1], ms);
  }

  /** Waits until the data has arrived in the channel. */
  async hears(channel, data, ms = 10_000) {
    const wanted = JSON.stringify(data);
    await until(`${this.sdk} hears ${wanted} in ${channel}`, () => this.received(channel).some((one) => JSON.stringify(one) === wanted), ms);
  }

  async connected(count = 1, ms = 10_000) {
    return this.event("connected", undefined, { count, ms });
  }
}
