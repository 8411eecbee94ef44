// What each SDK's user may do on one node, and what it is told.

import assert from "node:assert/strict";

import { JavaScriptClient } from "../clients/javascript.mjs";
import { PythonClient } from "../clients/python.mjs";
import { RawClient } from "../clients/raw.mjs";
import { sleep, until } from "../harness/poll.mjs";
import { Gateway, OPEN } from "../harness/processes.mjs";
import { alone, suite } from "../harness/suite.mjs";

const settings = {
  client: { channel_limit: 3 },
  channel: {
    max_length: 40,
    without_namespace: OPEN,
    namespaces: [
      { name: "read", allow_subscribe_for_client: true, allow_subscribe_for_anonymous: true },
      { name: "users", allow_subscribe_for_client: true },
    ],
  },
};

function refusedWith(code) {
  return (error) => {
    assert.equal(error.code, code, error.stack);
    return true;
  };
}

const forEach = (Sdk) => ({
  "connects and is named the node": async ({ gateway, add }) => {
    const client = add(new Sdk(gateway.url)).open();
    await client.connected();
    if (client.frames) assert.equal(client.node, "alone");
    const raw = add(new RawClient(gateway.url));
    const reply = await raw.connect();
    assert.equal(reply.node, "alone");
    assert.equal(reply.ping, 25);
    assert.equal(reply.pong, true);
    assert.match(reply.client, /\S/);
  },

  "hears its own publication, with who sent it": async ({ gateway, add }) => {
    const client = add(new Sdk(gateway.url)).open();
    await client.subscribe("news");
    const data = { text: "größer 😀 \u2028 \"quoted\" \n", nested: [1, null, { a: [] }], number: 1.5e3 };
    await client.publish("news", data);
    await client.hears("news", data);
    const [{ info }] = client.of("publication", "news");
    assert.match(info.client, /\S/);
    assert.equal(client.received("news").length, 1);
  },

  "publishes without being subscribed": async ({ gateway, add }) => {
    const [reader, writer] = [add(new Sdk(gateway.url)).open(), add(new Sdk(gateway.url)).open()];
    await reader.subscribe("open");
    await writer.publish("open", { from: "outside" });
    await reader.hears("open", { from: "outside" });
    assert.equal(writer.received("open").length, 0);
  },

  "hears nothing after it has unsubscribed, and all when it subscribes again": async ({ gateway, add }) => {
    const [leaver, stayer] = [add(new Sdk(gateway.url)).open(), add(new Sdk(gateway.url)).open()];
    await Promise.all([leaver.subscribe("come"), stayer.subscribe("come")]);
    await stayer.publish("come", 1);
    await leaver.hears("come", 1);
    await leaver.unsubscribe("come");
    await until("one subscription is left", async () => (await gateway.metric("flux_subscriptions")) === 1);
    await stayer.publish("come", 2);
    await stayer.hears("come", 2);
    await leaver.subscribe("come");
    await stayer.publish("come", 3);
    await leaver.hears("come", 3);
    assert.deepEqual(leaver.received("come"), [1, 3]);
  },

  "sees others join and leave": async ({ gateway, add }) => {
    const watcher = add(new Sdk(gateway.url)).open();
    await watcher.subscribe("room", { joinLeave: true });
    const guest = add(new Sdk(gateway.url)).open();
    await guest.subscribe("room");
    const about = (kind, id) => until(`the ${kind} of ${id}`, () => watcher.of(kind, "room").some(({ info }) => info.client === id));
    await about("join", guest.id);
    await guest.unsubscribe("room");
    await about("leave", guest.id);
    const gone = add(new Sdk(gateway.url)).open();
    await gone.subscribe("room");
    await about("join", gone.id);
    await gone.close();
    await about("leave", gone.id);
    assert.equal(guest.of("join").length, 0, "who did not ask for joins gets none");
  },

  "is told 108 for what is not available: rpc, history, presence": async ({ gateway, add }) => {
    const client = add(new Sdk(gateway.url)).open();
    await client.subscribe("news");
    await assert.rejects(client.rpc("method", { a: 1 }), refusedWith(108));
    await assert.rejects(client.history("news"), refusedWith(108));
    await assert.rejects(client.presence("news"), refusedWith(108));
    await assert.rejects(client.presenceStats("news"), refusedWith(108));
    await client.publish("news", "still there");
    await client.hears("news", "still there");
  },

  "is told 102 for an unknown namespace": async ({ gateway, add }) => {
    const client = add(new Sdk(gateway.url)).open();
    await client.connected();
    await assert.rejects(client.subscribe("nowhere:a"), refusedWith(102));
    await assert.rejects(client.publish("nowhere:a", 1), refusedWith(102));
  },

  "is told 103 where it has no permission": async ({ gateway, add }) => {
    const client = add(new Sdk(gateway.url)).open();
    await client.connected();
    await assert.rejects(client.subscribe("users:a"), refusedWith(103));
    await client.subscribe("read:a");
    await assert.rejects(client.publish("read:a", 1), refusedWith(103));
    assert.equal(client.of("connected").length, 1);
  },

  "is told 106 for one channel too many": async ({ gateway, add }) => {
    const client = add(new Sdk(gateway.url)).open();
    for (const channel of ["a", "b", "c"]) await client.subscribe(channel);
    await assert.rejects(client.subscribe("d"), refusedWith(106));
  },

  "is told 107 for a channel name that is too long": async ({ gateway, add }) => {
    const client = add(new Sdk(gateway.url)).open();
    await client.connected();
    await assert.rejects(client.subscribe("x".repeat(41)), refusedWith(107));
    await client.subscribe("x".repeat(40));
  },
});

const raw = {
  "several commands in one frame are answered, in one frame": async ({ gateway, add }) => {
    const client = await add(new RawClient(gateway.url)).opened;
    client.say([
      { id: 1, connect: { name: "raw" } },
      { id: 2, subscribe: { channel: "many" } },
      { id: 3, publish: { channel: "many", data: { n: 1 } } },
      { id: 4, unsubscribe: { channel: "many" } },
    ].map((command) => JSON.stringify(command)).join("\n"));
    await until("all four replies", () => [1, 2, 3, 4].every((id) => client.replies.some((reply) => reply.id === id)));
    const [connect, subscribe] = client.replies.filter((reply) => reply.id).map((reply) => reply.id);
    assert.deepEqual([connect, subscribe], [1, 2]);
    assert.ok(client.frames[0].includes("\n"), "replies that are there together go together");
  },

  "a JavaScript client connects and subscribes with one frame": async ({ gateway, add }) => {
    const client = add(new JavaScriptClient(gateway.url));
    const subscribed = client.subscribe("eager");
    client.open();
    await subscribed;
    assert.equal(client.sent.filter((frame) => frame !== "{}").length, 1, JSON.stringify(client.sent));
  },

  "a second subscribe to a channel is 105": async ({ gateway, add }) => {
    const client = add(new RawClient(gateway.url));
    await client.connect();
    assert.ok((await client.ask({ subscribe: { channel: "twice" } })).subscribe);
    assert.equal((await client.ask({ subscribe: { channel: "twice" } })).error.code, 105);
  },

  "a message to nobody (send) is taken and the client stays": async ({ gateway, add }) => {
    const client = add(new RawClient(gateway.url));
    await client.connect();
    client.say(JSON.stringify({ send: { data: { a: 1 } } }));
    assert.ok((await client.ask({ subscribe: { channel: "after" } })).subscribe);
    assert.equal(client.closed, null);
  },

  "fields that the schema does not have are ignored": async ({ gateway, add }) => {
    const client = await add(new RawClient(gateway.url)).opened;
    client.say('{"id":1,"connect":{"name":"x","future":{"deep":[1,2]},"flag":0},"later":true}');
    await until("a connect reply", () => client.replies.find((reply) => reply.id === 1)?.connect);
  },
};

for (const [what, text] of Object.entries({
  "garbage": "hello",
  "a truncated command": '{"id":1,"connect":{',
  "an empty message": "",
  "a command before connect": '{"id":1,"subscribe":{"channel":"a"}}',
  "a second connect": '{"id":1,"connect":{}}\n{"id":2,"connect":{}}',
  "an empty channel name": '{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":""}}',
  "data nested deeper than parsers can stand": `{"id":1,"connect":{}}\n{"id":2,"publish":{"channel":"a","data":${"[".repeat(5000)}${"]".repeat(5000)}}}`,
})) {
  raw[`${what} is answered with close code 3501`] = async ({ gateway, add }) => {
    const client = await add(new RawClient(gateway.url)).opened;
    client.say(text);
    const { code, reason } = await client.ended();
    assert.equal(code, 3501, reason);
  };
}

Object.assign(raw, {
  "an SDK stays away after a terminal code (3501)": async ({ gateway, add }) => {
    const client = add(new JavaScriptClient(gateway.url)).open();
    await client.connected();
    // The SDK itself never says this; its socket does, as a broken extension of it would.
    client.centrifuge._transport._transport.send("not a command");
    const { code } = await client.event("disconnected");
    assert.equal(code, 3501);
    await sleep(1500);
    assert.equal(client.of("connected").length, 1);
    assert.equal(client.centrifuge.state, "disconnected");
  },

  "a token that nobody can check is refused: 3500 or error 101, and the SDK stays away": async ({ gateway, add }) => {
    const client = add(new JavaScriptClient(gateway.url, { centrifuge: { token: "a.b.c" } })).open();
    const { code } = await client.event("disconnected");
    assert.ok([3500, 101].includes(code), `${code}`);
    await sleep(1000);
    assert.equal(client.of("connected").length, 0);
  },

  "binary messages are refused where JSON is spoken: 3501": async ({ gateway, add }) => {
    const client = await add(new RawClient(gateway.url)).opened;
    client.socket.send(Buffer.from([1, 2, 3]));
    assert.equal((await client.ended()).code, 3501);
  },
});

const world = () => alone(Gateway, { settings });

export const suites = [
  suite("JavaScript SDK", world, forEach(JavaScriptClient)),
  suite("Python SDK", world, forEach(PythonClient)),
  suite("wire", world, raw),
];
