// Who is there is who is there: exact counts after a clean leave, a crash, a cut from Redis, and a Redis that forgot.

import assert from "node:assert/strict";

import { RawClient } from "../clients/raw.mjs";
import { sleep, until } from "../harness/poll.mjs";
import { Cluster, OPEN } from "../harness/processes.mjs";
import { suite, together } from "../harness/suite.mjs";

const MEMBERS = 1000;
const API_KEY = "a key of the tests";

const settings = {
  client: { allow_anonymous_connect_without_token: true },
  http_api: { key: API_KEY },
  channel: { without_namespace: { ...OPEN, presence: true } },
};

async function count(gateway, channel) {
  const answer = await fetch(`http://${gateway.admin}/api/presence_stats`, {
    method: "POST", headers: { "X-API-Key": API_KEY }, body: JSON.stringify({ channel }),
  });
  const { result, error } = await answer.json();
  if (error) throw new Error(JSON.stringify(error));
  return result.num_clients;
}

/** Clients of a channel on one node. */
async function members(gateway, channel, number, add) {
  const clients = Array.from({ length: number }, () => add(new RawClient(gateway.url)));
  await Promise.all(clients.map(async (client) => {
    await client.connect();
    assert.ok((await client.ask({ subscribe: { channel } })).subscribe);
  }));
  return clients;
}

/** Waits until each of these nodes counts so many; the seconds that it took. */
async function counts(gateways, channel, expected, seconds) {
  const began = Date.now();
  for (const gateway of gateways) {
    let last;
    await until(`${gateway.id} counts ${expected}`, async () => {
      last = await count(gateway, channel);
      if (last !== expected) throw new Error(`it counts ${last}`);
      return true;
    }, seconds * 1000 - (Date.now() - began));
  }
  return (Date.now() - began) / 1000;
}

export const suites = [
  suite("presence", () => together(Cluster, 3, { settings }), {
    "those who leave are gone at once, on every node": async ({ gateways, add }) => {
      const [one] = gateways;
      const clients = await members(one, "clean", 50, add);
      await counts(gateways, "clean", 50, 5);
      for (const client of clients.slice(0, 20)) client.socket.close();
      for (const client of clients.slice(20, 40)) client.socket.terminate();
      await counts(gateways, "clean", 10, 3);
    },

    "a node that is cut from Redis has no members elsewhere, and has them again when it is back": async ({ cluster, gateways: [one, two, three], add }) => {
      await members(two, "frozen", 30, add);
      await members(one, "frozen", 10, add);
      await counts([one, three], "frozen", 40, 5);
      two.signal("SIGSTOP");
      const took = await counts([one, three], "frozen", 10, 25);
      console.log(`        gone after ${took.toFixed(1)} s`);
      two.signal("SIGCONT");
      const back = await counts([one, three], "frozen", 40, 25).catch(async (error) => {
        // Its clients' connections may have ended meanwhile; they are not ghosts then.
        const left = (await two.status()).connections;
        if (left >= 30) throw error;
        return 0;
      });
      console.log(`        back after ${back.toFixed(1)} s`);
      await cluster.routes(["gateway-1", "gateway-2", "gateway-3"]);
    },

    "Redis forgets everything and the members are there again": async ({ redis, gateways, add }) => {
      await members(gateways[0], "flushed", 100, add);
      await counts(gateways, "flushed", 100, 5);
      await redis.ask("FLUSHALL");
      const took = await counts(gateways, "flushed", 100, 25);
      console.log(`        whole after ${took.toFixed(1)} s`);
    },

    "Redis is started anew, empty, and the members are there again, no more and no less": async ({ redis, gateways, add }) => {
      const clients = await members(gateways[0], "restarted", 100, add);
      await counts(gateways, "restarted", 100, 5);
      await redis.kill();
      for (const client of clients.slice(0, 40)) client.socket.terminate();
      await sleep(2000);
      await redis.start();
      const took = await counts(gateways, "restarted", 60, 25);
      console.log(`        whole after ${took.toFixed(1)} s`);
      await until("all nodes are registered", async () => (await redis.ask("HLEN", "gateway:nodes")) === "3", 20_000);
    },

    "the members of a node that was killed are gone when the registry declares it dead": async ({ gateways: [one, two, three], add }) => {
      await members(three, "killed", MEMBERS, add);
      await members(one, "killed", 5, add);
      await counts([one, two, three], "killed", MEMBERS + 5, 20);
      await three.kill();
      const took = await counts([one, two], "killed", 5, 16);
      console.log(`        gone after ${took.toFixed(1)} s`);
      await three.start();
    },
  }),
];
