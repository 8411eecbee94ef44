// Whatever happens to Redis, clients stay connected, and whoever missed a publication is told: publications go on at two
// gateways with listeners of both kinds at each while it happens. Each test prints how long it took until all was well.

import assert from "node:assert/strict";

import { RawClient } from "../clients/raw.mjs";
import { OneRedis, RedisCluster, Sentinels } from "../harness/deployments.mjs";
import { sleep, until } from "../harness/poll.mjs";
import { Gateway, OPEN } from "../harness/processes.mjs";
import { suite } from "../harness/suite.mjs";
import { API_KEY, Traffic, api } from "../harness/traffic.mjs";
import { Wire } from "../harness/wire.mjs";

const SETTINGS = {
  client: { allow_anonymous_connect_without_token: true },
  http_api: { key: API_KEY },
  channel: {
    without_namespace: { ...OPEN, presence: true, history_size: 20_000, history_ttl: "300s", force_recovery: true, force_positioning: true },
  },
};

/** Deployments with their gateways, of tests that run side by side: `open` holds what runs. */
async function worlds() {
  const open = new Set();
  const processes = () => [...open].flatMap((world) => world.processes());
  return { open, processes, stop: () => Promise.all([...open].map((world) => world.close())) };
}

/** Two gateways over a deployment; with `isWired` the second one reaches its server over a wire. */
class World {
  constructor(open, deployment, isWired = false) {
    this.isWired = isWired;
    this.open = open;
    this.deployment = deployment;
    this.gateways = [];
    open.add(this);
  }

  async start() {
    const { deployment } = this;
    await deployment.start();
    const gateway = (id, settings) => {
      this.gateways.push(new Gateway(id, { settings: { ...settings, ...SETTINGS } }));
    };
    gateway("near", deployment.settings);
    if (this.isWired) {
      this.wire = await new Wire(`${deployment.redis.host}:${deployment.redis.port}`).start();
      gateway("far", { engine: { type: "redis", redis: { address: `redis://${this.wire.address}` } } });
    } else {
      gateway("far", deployment.settings);
    }
    await Promise.all(this.gateways.map((one) => one.start()));
    await Promise.all(this.gateways.map((one) => one.whole()));
    return this;
  }

  processes() {
    return [...this.deployment.processes, ...this.gateways];
  }

  async close() {
    this.open.delete(this);
    await this.traffic?.close();
    await Promise.all([...this.gateways, this.deployment].map((one) => one.remove()));
    await this.wire?.close();
  }
}

/** A deployment with gateways and traffic. */
async function busy({ open, add }, deployment, isWired) {
  const world = add(new World(open, deployment, isWired));
  await world.start();
  world.traffic = new Traffic(world.gateways);
  await world.traffic.start();
  return world;
}

/** Members of a channel on one node. */
async function members(gateway, channel, number, add) {
  const clients = Array.from({ length: number }, () => add(new RawClient(gateway.url)));
  for (const client of clients) {
    client.socket.on("message", (data) => {
      if (data.toString() === "{}") client.say("{}");
    });
  }
  await Promise.all(clients.map(async (client) => {
    await client.connect();
    await until("it is subscribed", async () => (await client.ask({ subscribe: { channel } })).subscribe, 30_000);
  }));
  return clients;
}

/** Waits until each of these nodes counts so many; the seconds since `began`. */
async function counts(gateways, channel, expected, seconds, began = Date.now()) {
  for (const gateway of gateways) {
    await until(`${gateway.id} counts ${expected}`, async () => {
      const { num_clients: count } = await api(gateway, "presence_stats", { channel });
      if (count !== expected) throw new Error(`it counts ${count}`);
      return true;
    }, seconds * 1000 - (Date.now() - began));
  }
  return (Date.now() - began) / 1000;
}

export const suites = [
  suite("faults of a connection", worlds, {
    "a subscriber connection that dies silently is found and replaced within 3 s, and nothing is missed": async (context) => {
      const { traffic, wire, gateways: [, far] } = await busy(context, new OneRedis(), true);
      let found;
      const figure = await traffic.survives("subscriber connection black-holed", async () => {
        const began = Date.now();
        assert.equal(wire.silence((said) => /SUBSCRIBE[^]*centrifugo\.client\.room/.test(said)), 1, "one connection is subscribed");
        await until("the loss is found", () => far.record("Redis is lost; publications stay on this node"), 10_000);
        found = (Date.now() - began) / 1000;
      });
      console.log(`        found after ${found.toFixed(1)} s`);
      assert.ok(found < 3 && figure.whole < 4, "in time");
      assert.equal(figure.told, 0, "the history has it all");
    },

    "a partition: a node's members are gone elsewhere in time, and none is a ghost when it is over": async ({ open, add }) => {
      const { wire, gateways: [near, far] } = await add(new World(open, new OneRedis(), true)).start();
      await members(near, "present", 10, add);
      const cut = await members(far, "present", 30, add);
      await counts([near, far], "present", 40, 20);
      wire.silence();
      const gone = await counts([near], "present", 10, 25);
      for (const client of cut.slice(0, 12)) client.socket.terminate();
      await sleep(1000);
      wire.mend();
      const back = await counts([near, far], "present", 28, 25);
      console.log(`        partition: gone after ${gone.toFixed(1)} s, exact ${back.toFixed(1)} s after it was over`);
      for (const client of cut.slice(12)) assert.equal(client.closed, null, "nobody was disconnected");
    },
  }, { parallel: 2 }),

  suite("faults", worlds, {
    "Redis stands still for 20 s": async (context) => {
      const { traffic, deployment: { redis } } = await busy(context, new OneRedis());
      await traffic.survives("SIGSTOP for 20 s", async () => {
        redis.signal("SIGSTOP");
        await sleep(20_000);
        redis.signal("SIGCONT");
        return Date.now();
      });
    },

    "a Sentinel master is killed": async (context) => {
      const { traffic, deployment } = await busy(context, new Sentinels());
      const [master, replica] = deployment.servers;
      await traffic.survives("Sentinel, master killed", async () => {
        await master.kill();
        await deployment.follow(replica);
      });
    },

    "a Sentinel master is replaced on order": async (context) => {
      const { traffic, deployment } = await busy(context, new Sentinels());
      const figure = await traffic.survives("Sentinel, failover ordered", async () => {
        assert.equal(await deployment.sentinels[0].ask("SENTINEL", "FAILOVER", "main"), "OK");
        await deployment.follow(deployment.servers[1]);
      });
      assert.deepEqual([figure.told, figure.refused], [0, 0], "the new master has it all");
    },

    "a cluster's slot moves with the channel in it": async (context) => {
      const { traffic, deployment } = await busy(context, new RedisCluster());
      const slot = await deployment.slotOf("room");
      const from = deployment.ownerOf(slot);
      const figure = await traffic.survives("Cluster, slot moved", () => deployment.migrate(slot, from, (from + 1) % 3, () => sleep(200)));
      assert.deepEqual([figure.told, figure.refused], [0, 0], "it costs publishers time, no errors");
    },

    "Redis forgets everything": async (context) => {
      const { traffic, deployment: { redis } } = await busy(context, new OneRedis());
      const figure = await traffic.survives("FLUSHALL", async () => { await redis.ask("FLUSHALL"); });
      assert.ok(figure.told > 0, "its listeners are told");
    },
  }, { parallel: 3 }),
];
