// Several nodes behind a balancer: clients hear each other wherever they are, in one order, and find
// their way when a node goes.

import assert from "node:assert/strict";

import { JavaScriptClient } from "../clients/javascript.mjs";
import { PythonClient } from "../clients/python.mjs";
import { RawClient } from "../clients/raw.mjs";
import { until } from "../harness/poll.mjs";
import { Cluster } from "../harness/processes.mjs";
import { suite, together } from "../harness/suite.mjs";

const MESSAGES_EACH = 250;

/**
 * A URL whose next connection goes to this node. Only the next: the bound on a node's load (1.25 of the
 * mean) holds for small numbers too. Where the bound leaves the node no key, others are loaded first.
 */
async function urlFor({ balancer, add }, node) {
  for (let ballast = 0; ballast < 60; ballast += 1) {
    for (let number = 0; number < 40; number += 1) {
      const key = `key-${number}`;
      if ((await balancer.owner(key)) === node.id) return `${balancer.url}?sid=${key}`;
    }
    await add(new RawClient(`${balancer.url.replace("/connection/websocket", "/echo")}?sid=ballast-${ballast}`)).opened;
  }
  throw new Error(`no key goes to ${node.id}`);
}

/** A client of each SDK, through the balancer, on this node. */
async function bothThrough(world, node) {
  const clients = [];
  for (const Sdk of [JavaScriptClient, PythonClient]) {
    const url = await urlFor(world, node);
    // Of all times: clients of the test before this one may still be leaving.
    const before = await node.metric("flux_accepted");
    const client = world.add(new Sdk(url)).open();
    await client.connected();
    await until(`${client.sdk} is on ${node.id}`, async () => (await node.metric("flux_accepted")) > before);
    clients.push(client);
  }
  return clients;
}

export const suites = [
  suite("cluster", () => together(Cluster, 3), {
    "JavaScript and Python hear each other across nodes, both ways": async ({ gateways: [a, b], add }) => {
      const js = add(new JavaScriptClient(a.url)).open();
      const python = add(new PythonClient(b.url)).open();
      await Promise.all([js.subscribe("chat"), python.subscribe("chat")]);
      assert.equal(js.node, "gateway-1");
      await js.publish("chat", { from: "js" });
      await python.publish("chat", { from: "python" });
      for (const client of [js, python]) {
        await client.hears("chat", { from: "js" });
        await client.hears("chat", { from: "python" });
        assert.equal(client.received("chat").length, 2, "each once");
      }
    },

    "one message reaches clients on every shard of every node": async ({ gateways, add }) => {
      const readers = [];
      // The kernel chooses the shard: connections are added until each has one.
      for (const gateway of gateways) {
        let count = 0;
        await until(`a client on both shards of ${gateway.id}`, async () => {
          if (count >= 40) throw new Error("40 connections, one shard");
          count += 1;
          const client = add(new JavaScriptClient(gateway.url)).open();
          await client.subscribe("everyone");
          readers.push(client);
          return (await gateway.status()).shards.every((shard) => shard.subscriptions > 0);
        }, 30_000);
      }
      await readers[0].publish("everyone", "hello");
      await Promise.all(readers.map((reader) => reader.hears("everyone", "hello")));
      assert.ok(readers.every((reader) => reader.received("everyone").length === 1));
    },

    "joins and leaves are seen across nodes": async ({ gateways: [a, b], add }) => {
      const watcher = add(new JavaScriptClient(a.url)).open();
      await watcher.subscribe("hall", { joinLeave: true });
      const guest = add(new PythonClient(b.url)).open();
      await guest.subscribe("hall");
      const about = (kind) => until(`the guest's ${kind}`, () => watcher.of(kind, "hall").some(({ info }) => info.client === guest.id));
      await about("join");
      await guest.close();
      await about("leave");
    },

    "through the balancer a key goes to the node that it says": async (world) => {
      const { gateways, balancer, add } = world;
      for (const node of gateways) {
        const { id } = node;
        const url = await urlFor(world, node);
        const client = add(new JavaScriptClient(url)).open();
        await client.connected();
        assert.equal(client.node, id, url);
        const key = new URL(await urlFor(world, node)).searchParams.get("sid");
        const other = add(new RawClient(balancer.url, { socket: { headers: { Cookie: `flux_sid=${key}` } } }));
        assert.equal((await other.connect()).node, id, "the cookie counts as the query does");
      }
    },

    "every subscriber sees one order per channel, nothing lost, nothing twice": async ({ gateways: [a, b, c], add }) => {
      const channels = ["order1", "order2"];
      const readers = [];
      for (const gateway of [a, b, c]) {
        for (let count = 0; count < 4; count += 1) readers.push(add(new JavaScriptClient(gateway.url)).open());
      }
      readers.push(add(new PythonClient(b.url)).open());
      const writers = [a, b, c].map((gateway) => add(new JavaScriptClient(gateway.url)).open());
      writers.push(add(new PythonClient(a.url)).open());
      await Promise.all(readers.flatMap((reader) => channels.map((channel) => reader.subscribe(channel))));
      await Promise.all(writers.map((writer) => writer.connected()));
      await Promise.all(writers.map(async (writer, who) => {
        const answers = [];
        for (let number = 0; number < MESSAGES_EACH; number += 1) {
          for (const channel of channels) answers.push(writer.publish(channel, { who, number }));
          if (number % 50 === 49) await Promise.all(answers.splice(0));
        }
        await Promise.all(answers);
      }));
      const total = writers.length * MESSAGES_EACH;
      for (const channel of channels) {
        await until(`all ${total} of ${channel} everywhere`, () => readers.every((reader) => reader.received(channel).length >= total), 30_000);
        const sequences = readers.map((reader) => reader.received(channel).map(({ who, number }) => `${who}.${number}`));
        const [first, ...others] = sequences;
        assert.equal(new Set(first).size, total, "nothing twice");
        for (const other of others) assert.deepEqual(other, first, "one order for everybody");
        for (let who = 0; who < writers.length; who += 1) {
          const own = first.filter((one) => one.startsWith(`${who}.`));
          assert.deepEqual(own, own.map((_, number) => `${who}.${number}`), "as each publisher sent it");
        }
      }
    },

    "a drained node sends its clients elsewhere with 3001 and exits 0; the others notice nothing": async (world) => {
      const { cluster, gateways, add } = world;
      const [a, , c] = gateways;
      const moved = await bothThrough(world, c);
      const untouched = add(new JavaScriptClient(a.url)).open();
      await Promise.all([...moved, untouched].map((client) => client.subscribe("duty")));
      assert.equal(moved[0].node, c.id);
      c.signal("SIGTERM");
      const exit = await c.ended;
      assert.deepEqual(exit, { code: 0, signal: null }, c.log);
      await Promise.all(moved.map((client) => client.event("subscribed", "duty", { count: 2 })));
      assert.equal(moved[0].closes[0].code, 3001);
      assert.notEqual(moved[0].node, c.id);
      assert.ok(moved[1].of("connecting").some(({ code }) => code === 3001), "Python was told 3001 too");
      await untouched.publish("duty", "after the drain");
      await Promise.all([...moved, untouched].map((client) => client.hears("duty", "after the drain")));
      assert.equal(untouched.of("connected").length, 1);
      await cluster.routes([gateways[0].id, gateways[1].id]);
      await c.start();
      await cluster.routes(gateways.map((gateway) => gateway.id));
    },

    "when a node is killed its clients come back through the balancer and resubscribe": async (world) => {
      const { cluster, gateways, add } = world;
      const [a, b] = gateways;
      const lost = await bothThrough(world, b);
      const untouched = add(new JavaScriptClient(a.url)).open();
      await Promise.all([...lost, untouched].map((client) => client.subscribe("rescue")));
      assert.equal(lost[0].node, b.id);
      b.signal("SIGKILL");
      await b.ended;
      await Promise.all(lost.map((client) => client.event("subscribed", "rescue", { count: 2, ms: 15_000 })));
      assert.notEqual(lost[0].node, b.id);
      await untouched.publish("rescue", "found again");
      await Promise.all([...lost, untouched].map((client) => client.hears("rescue", "found again")));
      assert.equal(untouched.of("connected").length, 1);
      await b.start();
      await cluster.routes(gateways.map((gateway) => gateway.id));
    },
  }),
];
