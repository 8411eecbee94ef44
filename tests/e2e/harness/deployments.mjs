// Redis in its forms: a Sentinel deployment and a Cluster, started for real. `settings` is what a gateway's
// configuration says about them.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { until } from "./poll.mjs";
import { Redis, freePort } from "./processes.mjs";

/** One master, one replica, three sentinels. */
export class Sentinels {
  constructor() {
    this.folder = mkdtempSync(join(tmpdir(), "flux-e2e-sentinel-"));
    this.servers = [new Redis(), new Redis()];
    this.sentinels = [];
  }

  async start() {
    const [master, replica] = this.servers;
    await master.start();
    // Else the others take the address that connections come from, where nobody listens.
    await replica.start(["--replicaof", master.host, String(master.port), "--replica-announce-ip", replica.host]);
    await until("the replica follows", async () => (await replica.ask("ROLE")).includes("connected"), 20_000);
    for (const number of [1, 2, 3]) {
      const sentinel = new Redis();
      const file = join(this.folder, `sentinel-${number}.conf`);
      writeFileSync(file, [
        `sentinel monitor main ${master.host} ${master.port} 2`,
        "sentinel down-after-milliseconds main 1000",
        "sentinel failover-timeout main 5000",
        `sentinel announce-ip ${sentinel.host}`,
        `dir ${this.folder}`,
      ].join("\n"));
      await sentinel.start([], [file, "--sentinel"]);
      this.sentinels.push(sentinel);
    }
    await until("the sentinels know each other and the replica", async () => {
      const known = await Promise.all(this.sentinels.map((sentinel) => sentinel.ask("SENTINEL", "MASTER", "main")));
      return known.every((one) => /num-other-sentinels\n2/.test(one) && /num-slaves\n1/.test(one) && /flags\nmaster\n/.test(one));
    }, 30_000);
    return this;
  }

  get settings() {
    return {
      engine: {
        type: "redis",
        redis: {
          sentinel_address: this.sentinels.map((sentinel) => `${sentinel.host}:${sentinel.port}`),
          sentinel_master_name: "main",
        },
      },
    };
  }

  get processes() {
    return [...this.servers, ...this.sentinels];
  }

  /** Address of the server that more than half of the sentinels call the master. */
  async master() {
    const named = await Promise.all(this.sentinels.map((sentinel) => sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")));
    return named.find((one) => named.filter((other) => other === one).length * 2 > named.length);
  }

  /** Waits until the sentinels call this server the master. */
  async follow(server) {
    await until("the sentinels name the other server", async () => (await this.master()) === `${server.host}\n${server.port}`, 30_000);
  }

  async remove() {
    await Promise.all(this.processes.map((process) => process.remove()));
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const SLOTS = 16_384;

/** Three masters with all slots among them. */
export class RedisCluster {
  constructor() {
    this.servers = [new Redis(), new Redis(), new Redis()];
  }

  async start() {
    const [first] = this.servers;
    const share = SLOTS / this.servers.length;
    for (const [at, server] of this.servers.entries()) {
      // Not the default, ten thousand above the port: that may be beyond the last one.
      const bus = await freePort(server.host);
      await server.start([
        "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", String(bus),
        // As with sentinels.
        "--cluster-announce-ip", server.host,
      ]);
      await server.ask("CLUSTER", "SET-CONFIG-EPOCH", String(at + 1));
      await server.ask("CLUSTER", "ADDSLOTSRANGE", String(Math.ceil(at * share)), String(Math.ceil((at + 1) * share) - 1));
      if (server !== first) await first.ask("CLUSTER", "MEET", server.host, String(server.port), String(bus));
    }
    for (const server of this.servers) {
      await until("every server says that the cluster is whole", async () => (await server.ask("CLUSTER", "INFO")).includes("cluster_state:ok"), 30_000);
    }
    return this;
  }

  /** The slot of a channel's keys. */
  async slotOf(channel) {
    return Number(await this.servers[0].ask("CLUSTER", "KEYSLOT", `{${channel}}`));
  }

  /** The server that has a slot. */
  ownerOf(slot) {
    return this.servers.findIndex((_, at) => slot < Math.ceil((at + 1) * SLOTS / this.servers.length));
  }

  /** Moves a slot and its keys, as resharding tools do it; `between` is waited for after each step. */
  async migrate(slot, from, to, between = async () => {}) {
    const [source, target] = [this.servers[from], this.servers[to]];
    const [sourceId, targetId] = [await source.ask("CLUSTER", "MYID"), await target.ask("CLUSTER", "MYID")];
    const told = async (server, ...words) => {
      const answer = await server.ask(...words);
      if (!/^(OK|NOKEY)$/.test(answer)) throw new Error(`${words.join(" ")}: ${answer}`);
    };
    await told(target, "CLUSTER", "SETSLOT", String(slot), "IMPORTING", sourceId);
    await told(source, "CLUSTER", "SETSLOT", String(slot), "MIGRATING", targetId);
    await between();
    for (;;) {
      const keys = (await source.ask("CLUSTER", "GETKEYSINSLOT", String(slot), "100")).split("\n").filter(Boolean);
      if (keys.length === 0) break;
      // One by one, so that for a while a channel's keys are at both.
      await told(source, "MIGRATE", target.host, String(target.port), "", "0", "5000", "KEYS", keys[0]);
      await between();
    }
    // The target first, so that the slot has an owner at every moment.
    await told(target, "CLUSTER", "SETSLOT", String(slot), "NODE", targetId);
    await told(source, "CLUSTER", "SETSLOT", String(slot), "NODE", targetId);
  }

  get settings() {
    return { engine: { type: "redis", redis: { cluster_address: this.servers.map((server) => `${server.host}:${server.port}`) } } };
  }

  get processes() {
    return this.servers;
  }

  async remove() {
    await Promise.all(this.servers.map((server) => server.remove()));
  }
}

/** One server, as `--redis` names it. */
export class OneRedis {
  constructor() {
    this.redis = new Redis();
  }

  async start() {
    await this.redis.start();
    return this;
  }

  get settings() {
    return { engine: { type: "redis", redis: { address: this.redis.url } } };
  }

  get processes() {
    return [this.redis];
  }

  remove() {
    return this.redis.remove();
  }
}
