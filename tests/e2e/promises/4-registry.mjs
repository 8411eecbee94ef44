// What the loss of Redis may cost (cross-node delivery, for as long as it is away) and may not
// (connections, delivery within a node); and two processes with one name.

import assert from "node:assert/strict";

import { JavaScriptClient } from "../clients/javascript.mjs";
import { PythonClient } from "../clients/python.mjs";
import { sleep, until } from "../harness/poll.mjs";
import { Cluster, Gateway } from "../harness/processes.mjs";
import { suite, together } from "../harness/suite.mjs";

const AWAY_MS = 30_000;
const REGISTRY_WHOLE_MS = 6_000;
/** Longest time between two local deliveries that still counts as "never stops", beyond that of a node without Redis. */
const LOCAL_GAP_MS = 2_000;

/** Publishes a number every 100 ms until stopped. */
function metronome(client, channel) {
  let number = 0;
  let running = true;
  const failures = [];
  const done = (async () => {
    while (running) {
      number += 1;
      await client.publish(channel, number).catch((error) => failures.push(error));
      await sleep(100);
    }
  })();
  return { failures, get last() { return number; }, stop: () => { running = false; return done; } };
}

/** Notes when each publication arrived; gives the longest gap. */
function gaps(client, channel) {
  const times = [Date.now()];
  client.centrifuge.getSubscription(channel).on("publication", () => times.push(Date.now()));
  return () => Math.max(...[...times, Date.now()].slice(1).map((time, index) => time - times[index]));
}

async function assertWhole(redis, count) {
  await until(`the registry holds ${count} nodes`, async () => Number(await redis.ask("HLEN", "gateway:nodes")) === count
    && Number(await redis.ask("ZCARD", "gateway:deadlines")) === count, REGISTRY_WHOLE_MS);
}

async function crossNode(a, b, channel, word) {
  let number = 0;
  await until(`a message crosses the nodes (${word})`, async () => {
    number += 1;
    await a.publish(channel, { word, number });
    await sleep(100);
    return b.received(channel).some((data) => data.word === word);
  }, 10_000);
}

export const suites = [
  suite("loss of Redis", () => together(Cluster, 2), {
    "30 s without Redis, then FLUSHALL: no connection lost, local delivery never stops, the rest heals by itself": async ({ cluster, gateways: [a, b], redis, balancer, add }) => {
      const clients = [];
      for (const gateway of [a, b]) {
        const writer = add(new JavaScriptClient(gateway.url)).open();
        const reader = add(new JavaScriptClient(gateway.url)).open();
        await Promise.all([reader.subscribe(`local-${gateway.id}`), reader.subscribe("wide"), writer.connected()]);
        clients.push({ gateway, writer, reader });
      }
      // What this machine itself keeps waiting: a node that has nothing to do with Redis, asked the same.
      const alone = new Gateway("alone");
      add({ close: () => alone.remove() });
      await alone.start();
      const [idleWriter, idleReader] = [1, 2].map(() => add(new JavaScriptClient(alone.url)).open());
      await Promise.all([idleReader.subscribe("alone"), idleWriter.connected()]);
      const balanced = add(new PythonClient(balancer.url)).open();
      await balanced.subscribe("wide");
      const everybody = () => [...clients.flatMap(({ writer, reader }) => [writer, reader]), balanced];
      await crossNode(clients[0].writer, clients[1].reader, "wide", "before");

      const beats = clients.map(({ gateway, writer }) => metronome(writer, `local-${gateway.id}`));
      const longest = clients.map(({ gateway, reader }) => gaps(reader, `local-${gateway.id}`));
      const aloneBeat = metronome(idleWriter, "alone");
      const aloneLongest = gaps(idleReader, "alone");
      await redis.kill();
      for (const { gateway } of clients) {
        await until(`${gateway.id} says that it is degraded`, async () => {
          const ready = await gateway.ready();
          return ready.status === 200 && ready.degraded.length > 0;
        });
      }
      await sleep(AWAY_MS / 2);
      const late = add(new JavaScriptClient(`${balancer.url}?sid=late`)).open();
      await late.subscribe("wide");
      await sleep(AWAY_MS / 2);

      await redis.start();
      await assertWhole(redis, 2);
      await crossNode(clients[0].writer, clients[1].reader, "wide", "after");
      await crossNode(clients[1].writer, clients[0].reader, "wide", "back");
      await redis.ask("FLUSHALL");
      await assertWhole(redis, 2);
      await crossNode(clients[0].writer, clients[1].reader, "wide", "flushed");

      for (const [index, beat] of beats.entries()) {
        await beat.stop();
        assert.deepEqual(beat.failures, []);
        const { gateway, reader } = clients[index];
        const channel = `local-${gateway.id}`;
        await until(`all of ${channel}`, () => reader.received(channel).length >= beat.last);
        assert.deepEqual(reader.received(channel), Array.from({ length: beat.last }, (_, number) => number + 1), "nothing lost, twice or out of order");
        const stood = longest[index]();
        assert.ok(stood < LOCAL_GAP_MS + aloneLongest(), `${channel} stood still for ${stood} ms, a node without Redis for ${aloneLongest()} ms`);
      }
      await aloneBeat.stop();
      for (const client of [...everybody(), late]) {
        assert.equal(client.of("connected").length, 1, `${client.sdk} was disconnected: ${JSON.stringify(client.events.filter(({ kind }) => kind !== "publication"))}`);
      }
      for (const { gateway } of clients) {
        await until(`${gateway.id} is no longer degraded`, async () => (await gateway.ready()).degraded.length === 0);
      }
      await cluster.routes([a.id, b.id]);
    },
  }),

  suite("fencing", () => together(Cluster, 2), {
    "of two processes with one id the older drains, says why and exits 0": async ({ cluster, gateways: [a, older], redis, add }) => {
      const client = add(new JavaScriptClient(older.url)).open();
      await client.subscribe("twins");
      const newer = new Gateway(older.id, { redis });
      add({ close: () => newer.remove() });
      await newer.start();
      await until("the older one is not ready any more", async () => older.exit || (await older.ready()).status === 503, 5_500);
      await client.event("connecting", undefined, { count: 2, ms: 15_000 });
      const exit = await until("the older one ends", () => older.exit, 20_000);
      assert.deepEqual(exit, { code: 0, signal: null }, older.log);
      assert.ok(older.records().some((record) => /fenced/i.test(JSON.stringify(record))), older.log);
      assert.equal(client.closes[0].code, 3001);
      assert.equal((await newer.ready()).status, 200);
      const nodes = JSON.parse(await redis.ask("HGET", "gateway:nodes", older.id));
      assert.equal(nodes.addr, newer.address, "the registry names the newer one");
      await cluster.routes([a.id, older.id]);
    },
  }),
];
