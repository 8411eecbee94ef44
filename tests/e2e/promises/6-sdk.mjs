// What a team gets that puts the gateway behind its product: tokens, history, recovery, presence, the backend's calls,
// with every SDK, format and transport, over memory and over Redis in its forms.

import assert from "node:assert/strict";

import { JavaScriptClient } from "../clients/javascript.mjs";
import { PythonClient } from "../clients/python.mjs";
import { Backend } from "../harness/backend.mjs";
import { OneRedis, RedisCluster, Sentinels } from "../harness/deployments.mjs";
import { sleep, until } from "../harness/poll.mjs";
import { Gateway, OPEN } from "../harness/processes.mjs";
import { suite } from "../harness/suite.mjs";
import { SECRET, fromNow, token } from "../harness/tokens.mjs";
import { Wire } from "../harness/wire.mjs";

const HISTORY_SIZE = 150;
const API_KEY = "a key of the tests";

const OPTIONS = {
  ...OPEN,
  allow_history_for_client: true,
  allow_history_for_subscriber: true,
  allow_history_for_anonymous: true,
  presence: true,
  history_size: HISTORY_SIZE,
  history_ttl: "300s",
  force_recovery: true,
  force_positioning: true,
  allowed_delta_types: ["fossil"],
};

/** SDK, format and transport. */
const DOORS = {
  "JavaScript": (url, options) => new JavaScriptClient(url, options),
  "JavaScript Protobuf": (url, options) => new JavaScriptClient(url, { ...options, protobuf: true }),
  "JavaScript SSE": (url, options) => new JavaScriptClient(url, { ...options, transport: "sse" }),
  "JavaScript HTTP-stream": (url, options) => new JavaScriptClient(url, { ...options, transport: "http_stream" }),
  "JavaScript HTTP-stream Protobuf": (url, options) => new JavaScriptClient(url, { ...options, transport: "http_stream", protobuf: true }),
  "Python": (url, options) => new PythonClient(url, options),
  "Python Protobuf": (url, options) => new PythonClient(url, { ...options, protobuf: true }),
};

const ENGINES = { memory: null, Redis: OneRedis, Sentinel: Sentinels, Cluster: RedisCluster };

/** What the backend says. */
const BACKEND = {
  "/rpc": ({ method, data, user }) => (method === "fail" ? { error: { code: 4242, message: "not today" } } : { result: { data: { method, data, user } } }),
  "/subscribe": ({ channel }) => (channel.startsWith("asked:open") ? { result: { data: { welcome: true } } } : { error: { code: 4001, message: "no" } }),
  "/publish": ({ data }) => (data.bad ? { error: { code: 4002, message: "bad" } } : { result: { data: { ...data, seen: true } } }),
};

/** Two gateways that share an engine (over memory both are the same one), and a backend. */
async function world(engine) {
  const backend = await new Backend().start();
  Object.assign(backend.answers, BACKEND);
  const deployment = engine ? new engine() : null;
  const settings = {
    ...(deployment ? (await deployment.start()).settings : {}),
    client: {
      allowed_origins: ["*"],
      allow_anonymous_connect_without_token: true,
      token: { hmac_secret_key: SECRET },
      subscription_token: { enabled: true, hmac_secret_key: SECRET },
    },
    sse: { enabled: true },
    http_stream: { enabled: true },
    http_api: { key: API_KEY },
    rpc: { proxy: { endpoint: `${backend.url}/rpc` }, without_namespace: { proxy_enabled: true } },
    channel: {
      without_namespace: OPTIONS,
      namespaces: [{ name: "plain", ...OPEN }, { name: "asked", ...OPTIONS, subscribe_proxy_enabled: true, publish_proxy_enabled: true }],
      proxy: { subscribe: { endpoint: `${backend.url}/subscribe` }, publish: { endpoint: `${backend.url}/publish` } },
    },
  };
  const near = new Gateway("near", { settings });
  const gateways = [near];
  if (deployment) gateways.push(new Gateway("far", { settings }));
  const processes = () => [...(deployment?.processes ?? []), ...gateways];
  const stop = async () => {
    await Promise.all([...gateways, deployment, { remove: () => backend.close() }].filter(Boolean).map((one) => one.remove()));
  };
  try {
    await Promise.all(gateways.map(async (gateway) => (await gateway.start()).whole()));
  } catch (error) {
    error.message += `\n${gateways.map((gateway) => gateway.log).join("\n")}`;
    await stop();
    throw error;
  }
  return { near, far: gateways.at(-1), backend, processes, stop };
}

/** A call of the server API; its result, or an error with the API's code. */
async function api(gateway, method, body) {
  const answer = await fetch(`http://${gateway.admin}/api/${method}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-API-Key": API_KEY },
    body: JSON.stringify(body),
  });
  const text = await answer.text();
  if (answer.status !== 200) throw new Error(`${method}: ${answer.status} ${text}`);
  const { result, error, ...rest } = JSON.parse(text);
  if (error) throw Object.assign(new Error(`${method}: ${text}`), error);
  return result ?? rest;
}

function refusedWith(code) {
  return (error) => {
    assert.equal(error.code, code, error.stack);
    return true;
  };
}

const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => from + index);

let names = 0;
/** A channel of one test. */
function channelFor(what) {
  names += 1;
  return `${what}-${names}`;
}

/** A client behind a wire that can be cut. */
async function onWire({ near, add }, door, options) {
  const wire = add(await new Wire(near.address).start());
  return { wire, client: add(door(wire.url, options)) };
}

/** Cuts the client's line, publishes meanwhile, mends it, and waits until the client is back. */
async function missing(world, { wire, client }, channel, messages) {
  const before = client.of("subscribed", channel).length;
  wire.cut();
  await until("the client has noticed", () => client.of("connecting").length > 1, 15_000);
  for (const message of messages) await api(world.far, "publish", { channel, data: message });
  wire.mend();
  return client.event("subscribed", channel, { count: before + 1, ms: 15_000 });
}

const promises = (door) => ({
  "connects without a token where that is allowed": async ({ near, add }) => {
    const client = add(door(near.url)).open();
    assert.match((await client.connected()).id, /^[0-9a-f-]{36}$/);
  },

  "connects with a token, and others see its user and what the token says of it": async ({ near, add }) => {
    const channel = channelFor("who");
    const client = add(door(near.url, { centrifuge: { token: token({ sub: "42", exp: fromNow(60), info: { name: "Alice" } }) } })).open();
    await client.subscribe(channel);
    await client.publish(channel, "hello");
    await client.hears(channel, "hello");
    const [{ info }] = client.of("publication", channel);
    assert.equal(info.user, "42");
    assert.deepEqual(info.connInfo, { name: "Alice" });
    const { clients } = await client.presence(channel);
    assert.deepEqual(Object.values(clients).map(({ user }) => user), ["42"]);
  },

  "an expired token is replaced by a new one": async ({ near, add }) => {
    let asked = 0;
    const getToken = async () => { asked += 1; return token({ sub: "42", exp: fromNow(60) }); };
    const client = add(door(near.url, { centrifuge: { token: token({ sub: "42", exp: fromNow(-60) }), getToken } })).open();
    await client.connected();
    assert.equal(asked, 1);
  },

  "a token that somebody else has signed ends it for good": async ({ near, add }) => {
    const client = add(door(near.url, { centrifuge: { token: token({ sub: "42" }, { secret: "another" }) } })).open();
    assert.equal((await client.event("disconnected")).code, 3500);
  },

  "a token is renewed before it expires, and the connection stays": async ({ near, add }) => {
    let asked = 0;
    const getToken = async () => { asked += 1; return token({ sub: "42", exp: fromNow(3) }); };
    const client = add(door(near.url, { centrifuge: { token: token({ sub: "42", exp: fromNow(3) }), getToken } })).open();
    await client.connected();
    await until("the token was renewed twice", () => asked >= 2, 20_000);
    assert.equal(client.of("connected").length, 1);
    assert.equal(client.of("connecting").length, 1);
  },

  "a private channel takes a token of its own": async ({ near, add }) => {
    const channel = `$${channelFor("private")}`;
    const client = add(door(near.url, { centrifuge: { token: token({ sub: "42" }) } })).open();
    await client.connected();
    await assert.rejects(client.subscribe(channel), refusedWith(103));
    const other = add(door(near.url, { centrifuge: { token: token({ sub: "42" }) } })).open();
    await other.subscribe(channel, { token: token({ sub: "42", channel, exp: fromNow(60), info: { seat: 7 } }) });
    await api(near, "publish", { channel, data: 1 });
    await other.hears(channel, 1);
    const { clients } = await other.presence(channel).catch(() => ({ clients: null }));
    if (clients) assert.deepEqual(Object.values(clients)[0].chanInfo, { seat: 7 });
  },

  "an expired subscription token is replaced by a new one": async ({ near, add }) => {
    const channel = `$${channelFor("private")}`;
    let asked = 0;
    const getToken = async () => { asked += 1; return token({ sub: "42", channel, exp: fromNow(60) }); };
    const client = add(door(near.url, { centrifuge: { token: token({ sub: "42" }) } })).open();
    await client.connected();
    client.subscribe(channel, { token: token({ sub: "42", channel, exp: fromNow(-60) }), getToken }).catch(() => {});
    await client.event("subscribed", channel);
    assert.equal(asked, 1);
  },

  "a subscription token is renewed before it expires": async ({ near, add }) => {
    const channel = `$${channelFor("private")}`;
    let asked = 0;
    const getToken = async () => { asked += 1; return token({ sub: "42", channel, exp: fromNow(3) }); };
    const client = add(door(near.url, { centrifuge: { token: token({ sub: "42" }) } })).open();
    await client.subscribe(channel, { token: token({ sub: "42", channel, exp: fromNow(3) }), getToken });
    await until("the token was renewed twice", () => asked >= 2, 20_000);
    assert.equal(client.of("subscribed", channel).length, 1);
  },

  "hears its own publication once, with its place in the history": async ({ near, add }) => {
    const channel = channelFor("echo");
    const client = add(door(near.url)).open();
    await client.subscribe(channel);
    const data = { text: "größer 😀 \u2028 \"quoted\" \n", nested: [1, null, { a: [] }] };
    await client.publish(channel, data);
    await client.hears(channel, data);
    assert.deepEqual(client.of("publication", channel).map(({ offset }) => offset), [1]);
  },

  "pages through the history, forwards and backwards": async ({ near, far, add }) => {
    const channel = channelFor("history");
    for (const n of numbers(1, 10)) await api(far, "publish", { channel, data: { n } });
    const client = add(door(near.url)).open();
    await client.subscribe(channel);
    const read = ({ publications }) => publications.map(({ data, offset }) => (assert.equal(data.n, offset), offset));
    const top = await client.history(channel, { limit: 0 });
    assert.equal(top.offset, 10);
    assert.deepEqual(read(top), []);
    const { epoch } = top;
    assert.deepEqual(read(await client.history(channel, { limit: 4 })), [1, 2, 3, 4]);
    assert.deepEqual(read(await client.history(channel, { limit: 4, since: { offset: 4, epoch } })), [5, 6, 7, 8]);
    assert.deepEqual(read(await client.history(channel, { limit: 4, since: { offset: 8, epoch } })), [9, 10]);
    assert.deepEqual(read(await client.history(channel, { limit: 3, reverse: true })), [10, 9, 8]);
    assert.deepEqual(read(await client.history(channel, { limit: 3, since: { offset: 8, epoch }, reverse: true })), [7, 6, 5]);
    assert.equal(read(await client.history(channel, { limit: -1 })).length, 10);
    await assert.rejects(client.history(channel, { limit: 1, since: { offset: 1, epoch: "another" } }), refusedWith(112));
  },

  ...Object.fromEntries([0, 1, 100].map((count) => [`after a cut it gets the ${count} that it missed, in order`, async (world) => {
    const channel = channelFor("recovery");
    const on = await onWire(world, door);
    on.client.open();
    await on.client.subscribe(channel, { recoverable: true });
    await api(world.far, "publish", { channel, data: 0 });
    await on.client.hears(channel, 0);
    const subscribed = await missing(world, on, channel, numbers(1, count));
    assert.equal(subscribed.wasRecovering, true);
    assert.equal(subscribed.recovered, true);
    await api(world.far, "publish", { channel, data: "after" });
    await on.client.hears(channel, "after");
    assert.deepEqual(on.client.received(channel), [...numbers(0, count), "after"]);
    assert.deepEqual(on.client.of("publication", channel).map(({ offset }) => offset), numbers(1, count + 2));
  }])),

  "after a cut in which it missed more than the history holds it is told so": async (world) => {
    const channel = channelFor("too-many");
    const on = await onWire(world, door);
    on.client.open();
    await on.client.subscribe(channel, { recoverable: true });
    await api(world.far, "publish", { channel, data: 0 });
    await on.client.hears(channel, 0);
    const subscribed = await missing(world, on, channel, numbers(1, HISTORY_SIZE + 10));
    assert.equal(subscribed.wasRecovering, true);
    assert.equal(subscribed.recovered, false);
    await api(world.far, "publish", { channel, data: "after" });
    await on.client.hears(channel, "after");
    assert.deepEqual(on.client.received(channel), [0, "after"]);
  },

  "sees who is there, and how many, wherever they are": async ({ near, far, add }) => {
    const channel = channelFor("presence");
    const [here, there] = [add(door(near.url)).open(), add(door(far.url, { centrifuge: { token: token({ sub: "42" }) } })).open()];
    await Promise.all([here.subscribe(channel), there.subscribe(channel)]);
    await until("both are there", async () => Object.keys((await here.presence(channel)).clients).length === 2);
    assert.deepEqual(Object.keys((await here.presence(channel)).clients).sort(), [here.id, there.id].sort());
    // A node knows its own clients at once, those of others when Redis does.
    const { numUsers } = await until("there too", async () => {
      const stats = await there.presenceStats(channel);
      return stats.numClients === 2 && stats;
    });
    assert.equal(numUsers, 2);
    await there.close();
    await until("one has left", async () => (await here.presenceStats(channel)).numClients === 1);
  },

  "sees others join and leave": async ({ near, far, add }) => {
    const channel = channelFor("join");
    const watcher = add(door(near.url)).open();
    await watcher.subscribe(channel, { joinLeave: true });
    const guest = add(door(far.url)).open();
    await guest.subscribe(channel);
    const about = (kind) => until(`the ${kind}`, () => watcher.of(kind, channel).some(({ info }) => info.client === guest.id));
    await about("join");
    await guest.unsubscribe(channel);
    await about("leave");
  },

  "calls the backend": async ({ near, add }) => {
    const client = add(door(near.url, { centrifuge: { token: token({ sub: "42" }) } })).open();
    await client.connected();
    const { data } = await client.rpc("sum", { a: 1 });
    assert.deepEqual(data, { method: "sum", data: { a: 1 }, user: "42" });
    await assert.rejects(client.rpc("fail", {}), refusedWith(4242));
  },

  "subscribes and publishes where the backend says so": async ({ near, add }) => {
    const channel = `asked:${channelFor("open")}`;
    const client = add(door(near.url)).open();
    await client.subscribe(channel);
    assert.deepEqual(client.of("subscribed", channel)[0].data, { welcome: true });
    await assert.rejects(client.subscribe(`asked:${channelFor("refused")}`), refusedWith(4001));
    await client.publish(channel, { n: 1 });
    await client.hears(channel, { n: 1, seen: true });
    await assert.rejects(client.publish(channel, { bad: true }), refusedWith(4002));
  },

  "is subscribed by its token, hears those channels, and recovers them": async (world) => {
    const channel = channelFor("server-side");
    const on = await onWire(world, door, { centrifuge: { token: token({ sub: "42", channels: [channel] }) } });
    on.client.open();
    await on.client.event("subscribed", channel);
    await api(world.far, "publish", { channel, data: 0 });
    await on.client.hears(channel, 0);
    const { recovered } = await missing(world, on, channel, numbers(1, 5));
    assert.equal(recovered, true);
    await until("all have arrived", () => on.client.received(channel).length >= 6);
    assert.deepEqual(on.client.received(channel), numbers(0, 5));
  },

  "hears what the backend publishes and broadcasts, with its tags": async ({ near, far, add }) => {
    const [one, two] = [channelFor("api"), channelFor("api")];
    const client = add(door(near.url)).open();
    await Promise.all([client.subscribe(one), client.subscribe(two)]);
    const { offset } = await api(far, "publish", { channel: one, data: { n: 1 }, tags: { kind: "first" } });
    assert.equal(offset, 1);
    await client.hears(one, { n: 1 });
    assert.deepEqual(client.of("publication", one)[0].tags, { kind: "first" });
    await api(far, "broadcast", { channels: [one, two], data: "all" });
    await client.hears(one, "all");
    await client.hears(two, "all");
  },

  "a publication with the same idempotency key is published once": async ({ near, far, add }) => {
    const channel = channelFor("idempotent");
    const client = add(door(near.url)).open();
    await client.subscribe(channel);
    const first = await api(far, "publish", { channel, data: 1, idempotency_key: "k" });
    const again = await api(near, "publish", { channel, data: 1, idempotency_key: "k" });
    assert.deepEqual(again, first);
    await api(near, "publish", { channel, data: 2 });
    await client.hears(channel, 2);
    assert.deepEqual(client.received(channel), [1, 2]);
  },

  "is subscribed and unsubscribed by the backend": async ({ near, far, add }) => {
    const user = channelFor("user");
    const channel = channelFor("by-server");
    const client = add(door(near.url, { centrifuge: { token: token({ sub: user }) } })).open();
    await client.connected();
    await api(far, "subscribe", { user, channel });
    await client.event("subscribed", channel);
    await api(far, "publish", { channel, data: 1 });
    await client.hears(channel, 1);
    await api(far, "unsubscribe", { user, channel });
    await client.event("unsubscribed", channel);
    const own = channelFor("own");
    await client.subscribe(own);
    await api(far, "unsubscribe", { user, channel: own });
    assert.equal((await client.event("unsubscribed", own)).code, 2000);
  },

  "is disconnected by the backend, for good or to come back, as the code says": async ({ near, far, add }) => {
    const user = channelFor("user");
    const client = add(door(near.url, { centrifuge: { token: token({ sub: user }) } })).open();
    await client.connected();
    await api(far, "disconnect", { user, disconnect: { code: 4100, reason: "come back" } });
    await client.connected(2);
    assert.ok(client.of("connecting").some(({ code }) => code === 4100), JSON.stringify(client.of("connecting")));
    await api(far, "disconnect", { user });
    assert.equal((await client.event("disconnected")).code, 3503);
  },

  "finds the cluster's clients and channels through any node": async ({ near, far, add }) => {
    const channel = channelFor("info");
    const client = add(door(near.url)).open();
    await client.subscribe(channel);
    const { channels } = await api(far, "channels", { pattern: `${channel}*` });
    assert.deepEqual(channels, { [channel]: { num_clients: 1 } });
    const { nodes } = await api(far, "info", {});
    assert.equal(nodes.length, near === far ? 1 : 2);
    assert.ok(nodes.reduce((sum, node) => sum + node.num_clients, 0) >= 1);
    await until("it is present", async () => Object.keys((await api(far, "presence", { channel })).presence).join() === client.id);
  },

  "gets deltas where it asks for them, and the whole after them": async ({ near, far, add }) => {
    const channel = channelFor("delta");
    const client = add(door(near.url)).open();
    await client.subscribe(channel, { delta: "fossil", recoverable: true });
    const big = (n) => ({ n, text: "the quick brown fox jumps over the lazy dog; ".repeat(20) });
    for (const n of numbers(1, 5)) await api(far, "publish", { channel, data: big(n), delta: true });
    await until("all have arrived", () => client.received(channel).length >= 5);
    assert.deepEqual(client.received(channel), numbers(1, 5).map(big));
    if (client.frames && !client.isProtobuf && client.frames.length > 0) {
      const frames = client.frames.filter((frame) => frame.includes(channel) && frame.includes('"delta":true') && frame.includes('"pub"'));
      assert.equal(frames.length, 4, "all but the first were deltas");
      assert.ok(frames.every((frame) => frame.length < 400));
    }
  },
});

const batching = {
  "a batch of commands of the JavaScript SDK is answered whole": async ({ near, add }) => {
    const client = add(new JavaScriptClient(near.url)).open();
    await client.connected();
    const channel = channelFor("batch");
    await client.subscribe(channel);
    const before = client.sent.length;
    client.centrifuge.startBatching();
    const published = numbers(1, 20).map((n) => client.publish(channel, n));
    client.centrifuge.stopBatching();
    await Promise.all(published);
    assert.equal(client.sent.length, before + 1);
    await until("all have arrived", () => client.received(channel).length >= 20);
    assert.deepEqual(client.received(channel), numbers(1, 20));
  },

  "an HTTP-stream's commands reach it through another node": async ({ near, far, add }) => {
    const channel = channelFor("emulation");
    const base = (gateway) => `http://${gateway.address}`;
    const client = add(new JavaScriptClient(near.url, {
      transport: "http_stream", centrifuge: { emulationEndpoint: `${base(far)}/emulation` },
    })).open();
    await client.subscribe(channel);
    await client.publish(channel, "through the other node");
    await client.hears(channel, "through the other node");
  },

  "SDKs stay away after a terminal code and come back after others": async ({ near, add }) => {
    const user = channelFor("user");
    const client = add(new PythonClient(near.url, { centrifuge: { token: token({ sub: user }) } })).open();
    await client.connected();
    await api(near, "disconnect", { user, disconnect: { code: 4500, reason: "for good" } });
    assert.equal((await client.event("disconnected")).code, 4500);
    await sleep(500);
    assert.equal(client.of("connected").length, 1);
  },
};

export const suites = Object.entries(ENGINES).flatMap(([engine, deployment]) => {
  const start = () => world(deployment);
  const tests = Object.entries(DOORS).flatMap(([door, make]) => Object.entries(promises(make)).map(([name, run]) => [`${door}: ${name}`, run]));
  return [suite(`${engine} engine`, start, { ...Object.fromEntries(tests), ...batching }, { parallel: 10 })];
});
