// Publications that go on while something happens, and what every client makes of them.
//
// One publisher a gateway publishes over its server API, one publication after the other, each once: a refused one is
// not tried again. Clients of both kinds listen at every gateway. The verdict: nobody was disconnected; nobody got
// anything twice; and whoever did not get all that was acknowledged, in the order of its publisher, was told at that
// place (recovered: false).

import assert from "node:assert/strict";

import { JavaScriptClient } from "../clients/javascript.mjs";
import { RawClient } from "../clients/raw.mjs";
import { sleep, until } from "./poll.mjs";

export const API_KEY = "a key of the tests";
const CHANNEL = "room";
const PAUSE_MS = 30;
/** For all to be connected and subscribed, on a machine that starts much else at the time. */
const START_MS = 30_000;
/** What took longer from the publisher to a client was held up by what happened. */
const LATE_MS = 700;

/** Asks a gateway's server API. */
export async function api(gateway, method, params) {
  const answer = await fetch(`http://${gateway.admin}/api/${method}`, {
    method: "POST", headers: { "X-API-Key": API_KEY }, body: JSON.stringify(params), signal: AbortSignal.timeout(10_000),
  });
  const { result, error } = await answer.json();
  if (error) throw Object.assign(new Error(`${method}: ${error.code} ${error.message}`), { code: error.code });
  return result;
}

/** What a listener has got, in order: publications {from, n, at} and the word that some are missing {told, at}. */
class Listener {
  got = [];
  last = new Map();

  publication({ from, n }) {
    this.got.push({ from, n, at: Date.now() });
    this.last.set(from, n);
  }

  told() {
    this.got.push({ told: true, at: Date.now() });
  }
}

/** An unmodified SDK. */
class SdkListener extends Listener {
  constructor(gateway, protobuf) {
    super();
    this.name = `an SDK${protobuf ? " (Protobuf)" : ""} at ${gateway.id}`;
    this.client = new JavaScriptClient(gateway.url, { protobuf }).open();
  }

  async start() {
    await this.client.connected(1, START_MS);
    const subscription = this.client.centrifuge.newSubscription(CHANNEL, { minResubscribeDelay: 50, maxResubscribeDelay: 500, recoverable: true, positioned: true });
    subscription.on("publication", (context) => this.publication(this.client.read(context).data));
    subscription.on("subscribed", ({ wasRecovering, recovered }) => {
      if (wasRecovering && !recovered) this.told();
    });
    // What is refused for the moment the SDK asks for again.
    subscription.subscribe();
    await subscription.ready(START_MS);
  }

  get dropped() {
    return this.client.of("connecting").length - 1 + this.client.of("disconnected").length;
  }

  close() {
    return this.client.close();
  }
}

/** The protocol itself over a WebSocket: subscribes again from its position, as the protocol says. */
class WireListener extends Listener {
  constructor(gateway) {
    super();
    this.name = `a bare client at ${gateway.id}`;
    this.client = new RawClient(gateway.url);
    this.isSubscribed = false;
    // Each message as it comes, so that what stands behind a reply is taken after it.
    this.client.socket.on("message", (data) => {
      for (const line of data.toString().split("\n")) this.take(JSON.parse(line));
    });
  }

  async start() {
    await this.client.connect();
    this.subscribe({});
    await until(`${this.name} is subscribed`, () => this.isSubscribed, START_MS);
  }

  take({ id, push, subscribe, error }) {
    if (id === undefined && push === undefined) this.client.say("{}");
    if (push?.pub) {
      this.position.offset = push.pub.offset;
      this.publication(push.pub.data);
    } else if (push?.unsubscribe) {
      this.isSubscribed = false;
      assert.ok(push.unsubscribe.code >= 2500, `${this.name} lost its subscription: ${JSON.stringify(push)}`);
      this.subscribe({ recover: true, ...this.position });
    } else if (subscribe) {
      this.isSubscribed = true;
      this.position = { epoch: subscribe.epoch, offset: subscribe.offset ?? 0 };
      if (subscribe.was_recovering && !subscribe.recovered) this.told();
      for (const { data } of subscribe.publications ?? []) this.publication(data);
    } else if (error && id > 1) {
      assert.ok(error.temporary, `${this.name}: ${JSON.stringify(error)}`);
      setTimeout(() => this.subscribe({ recover: Boolean(this.position), ...this.position }), 100);
    }
  }

  subscribe(from) {
    if (this.client.closed) return;
    const id = this.client.next;
    this.client.next += 1;
    this.client.say(JSON.stringify({ id, subscribe: { channel: CHANNEL, ...from } }));
  }

  get dropped() {
    return this.client.closed ? 1 : 0;
  }

  close() {
    return this.client.close();
  }
}

export class Traffic {
  /** `count` listeners at each gateway. */
  constructor(gateways, count = 12) {
    this.gateways = gateways;
    this.listeners = gateways.flatMap((gateway) => Array.from({ length: count }, (_, n) => (
      n % 2 === 0 ? new WireListener(gateway) : new SdkListener(gateway, n % 4 === 1)
    )));
    /** Of each gateway what was published there: {n, began, took, error?}. */
    this.published = new Map(gateways.map(({ id }) => [id, []]));
    this.isOver = false;
  }

  async start() {
    await Promise.all(this.listeners.map((listener) => listener.start()));
    this.publishers = this.gateways.map((gateway) => this.publish(gateway));
    await this.flows("publications reach everybody");
    return this;
  }

  async publish(gateway) {
    const list = this.published.get(gateway.id);
    for (let n = 0; !this.isOver; n += 1) {
      const began = Date.now();
      const error = await api(gateway, "publish", { channel: CHANNEL, data: { from: gateway.id, n } }).then(() => undefined, (refused) => refused.message);
      list.push({ n, began, took: Date.now() - began, error });
      await sleep(PAUSE_MS);
    }
  }

  /** Waits until for a second every publication is taken, and everybody has the latest ones. */
  async flows(what, ms = 20_000) {
    let since = Date.now();
    await until(what, () => {
      const now = Date.now();
      const isFlowing = this.gateways.every(({ id }) => {
        const list = this.published.get(id);
        const recent = list.filter(({ began, took }) => began + took > now - 500);
        const wanted = list.findLast(({ began, error }) => !error && began < now - LATE_MS)?.n;
        return recent.length > 0 && recent.every(({ error }) => !error) && wanted !== undefined
          && this.listeners.every((listener) => listener.last.get(id) >= wanted);
      });
      if (!isFlowing) since = now;
      return now - since > 1000;
    }, ms);
  }

  /**
   * Lets something happen and waits until all is well again, which has to be so by itself and within `ms`; then judges
   * and prints what it meant for clients. `fault` may return when it was over, if that is what counts.
   */
  async survives(what, fault, ms = 30_000) {
    const began = Date.now();
    const happened = (await fault()) ?? began;
    await this.flows(`${what}: publications reach everybody again`, ms);
    await this.end();
    return this.judge(what, began, happened);
  }

  async end() {
    this.isOver = true;
    await Promise.all(this.publishers);
    await until("everybody has the last of all", () => this.gateways.every(({ id }) => {
      const last = this.published.get(id).findLast(({ error }) => !error).n;
      return this.listeners.every((listener) => listener.last.get(id) >= last);
    }));
  }

  judge(what, began, happened) {
    const all = [...this.published.values()].flat();
    const refused = all.filter(({ error }) => error);
    const told = this.listeners.filter((listener) => listener.got.some((one) => one.told)).length;
    const dropped = this.listeners.reduce((sum, listener) => sum + listener.dropped, 0);
    let whole = Math.max(began, ...all.filter(({ error, took }) => error || took > LATE_MS).map((one) => one.began + one.took));
    let pause = 0;
    for (const listener of this.listeners) {
      whole = Math.max(whole, this.check(listener));
      const times = listener.got.map(({ at }) => at).filter((at) => at >= began - 1000);
      for (let n = 1; n < times.length; n += 1) pause = Math.max(pause, times[n] - times[n - 1]);
    }
    const figure = {
      told, dropped, refused: refused.length, acknowledged: all.length - refused.length,
      whole: Math.max(0, whole - happened) / 1000, pause: pause / 1000, slowest: Math.max(...all.map(({ took }) => took)) / 1000,
    };
    console.log(`        ${what}: whole after ${figure.whole.toFixed(1)} s; ${this.listeners.length} clients, ${dropped} dropped, ${told} told, `
      + `longest pause ${figure.pause.toFixed(1)} s; ${figure.acknowledged} acknowledged, ${figure.refused} refused, slowest ${figure.slowest.toFixed(1)} s`);
    assert.equal(dropped, 0, "connections of clients that ended");
    return figure;
  }

  /** No gap without a word, nothing twice. When it last got something late. */
  check(listener) {
    let late = 0;
    for (const { id } of this.gateways) {
      const list = this.published.get(id);
      const seen = new Set();
      let [last, wasTold] = [-1, false];
      for (const { told, from, n, at } of listener.got) {
        if (told) {
          wasTold = true;
          late = Math.max(late, at);
        } else if (from === id) {
          assert.ok(!seen.has(n), `${listener.name} got ${n} of ${id} twice`);
          seen.add(n);
          if (at - list[n].began > LATE_MS) late = Math.max(late, at);
          // Of a refused one nobody knows whether and when it was carried out.
          if (list[n].error) continue;
          assert.ok(n > last, `${listener.name} got ${n} of ${id} after ${last}`);
          const missed = list.slice(last + 1, n).filter((one) => !one.error);
          assert.ok(wasTold || missed.length === 0, `${listener.name} was not told that it missed ${missed.map((one) => one.n)} of ${id}`);
          [last, wasTold] = [n, false];
        }
      }
    }
    return late;
  }

  async close() {
    this.isOver = true;
    await Promise.all(this.listeners.map((listener) => listener.close()));
  }
}
