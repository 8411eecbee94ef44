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
    await replica.start(["--replicaof", master.host, String(master.port)]);
    await until("the replica follows", async () => (await replica.ask("ROLE")).includes("connected"), 20_000);
    for (const number of [1, 2, 3]) {
      const sentinel = new Redis();
      const file = join(this.folder, `sentinel-${number}.conf`);
      writeFileSync(file, [
        `sentinel monitor main ${master.host} ${master.port} 2`,
        "sentinel down-after-milliseconds main 1000",
        "sentinel failover-timeout main 5000",
        `dir ${this.folder}`,
      ].join("\n"));
      await sentinel.start([], [file, "--sentinel"]);
      this.sentinels.push(sentinel);
    }
    const [first] = this.sentinels;
    await until("the sentinels know each other and the replica", async () => {
      const known = await first.ask("SENTINEL", "MASTER", "main");
      return /num-other-sentinels\n2/.test(known) && /num-slaves\n1/.test(known);
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
        // Else the others take the address that its connections come from, where it does not listen.
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
