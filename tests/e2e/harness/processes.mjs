// The real programs as child processes: started, asked, stopped by pid. Ports come from the kernel.

import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { until } from "./poll.mjs";

export const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
export const PROGRAMS = process.env.FLUX_BIN ?? join(ROOT, "target/debug");

/** What the demo allows: everything, to everybody, in channels without a namespace. */
export const OPEN = {
  allow_subscribe_for_client: true,
  allow_subscribe_for_anonymous: true,
  allow_publish_for_client: true,
  allow_publish_for_subscriber: true,
  allow_publish_for_anonymous: true,
  allow_presence_for_client: true,
  allow_presence_for_subscriber: true,
  allow_presence_for_anonymous: true,
  join_leave: true,
};

const alive = new Set();
process.on("exit", () => {
  for (const child of alive) child.kill("SIGKILL");
});

/** A child process with its log. */
class Process {
  constructor(name, command, args) {
    this.name = name;
    this.command = command;
    this.args = args;
    this.log = "";
  }

  spawn() {
    if (!existsSync(this.command) && this.command.includes("/")) throw new Error(`no ${this.command}; build it first`);
    const env = { ...process.env };
    for (const key of Object.keys(env)) if (key.startsWith("FLUX_")) delete env[key];
    Object.assign(env, this.env);
    this.exit = null;
    // What an earlier life said must not be taken for this one's.
    this.log = "";
    const child = spawn(this.command, this.args, { stdio: ["ignore", "pipe", "pipe"], env });
    this.child = child;
    alive.add(child);
    child.stdout.on("data", (bytes) => { this.log += bytes; });
    child.stderr.on("data", (bytes) => { this.log += bytes; });
    this.ended = new Promise((resolve) => {
      child.once("close", (code, signal) => {
        alive.delete(child);
        this.exit = { code, signal };
        resolve(this.exit);
      });
    });
    return this;
  }

  get pid() {
    return this.child.pid;
  }

  signal(name) {
    this.child.kill(name);
  }

  /** Ends it for certain; its own way out is not waited for. */
  async kill() {
    if (this.child && !this.exit) {
      this.child.kill("SIGCONT");
      this.child.kill("SIGKILL");
      await this.ended;
    }
  }

  /** Lines of its log that are JSON, as the programs write where there is no terminal. */
  records() {
    return this.log.split("\n").flatMap((line) => {
      try {
        return [JSON.parse(line)];
      } catch {
        return [];
      }
    });
  }

  record(message) {
    return this.records().find((record) => (record.fields?.message ?? record.message) === message);
  }

  async listening(message) {
    const record = await until(`${this.name} says "${message}"`, () => {
      if (this.exit) throw new Error(`${this.name} ended: ${JSON.stringify(this.exit)}\n${this.log}`);
      return this.record(message);
    }, 20_000);
    return record.fields ?? record;
  }
}

/** A Redis on a loopback address of its own, so that its port is still free when it comes back. */
export class Redis extends Process {
  constructor() {
    super("redis", "redis-server", []);
    const part = () => 1 + Math.floor(Math.random() * 254);
    this.host = `127.${part()}.${part()}.${part()}`;
    this.folder = mkdtempSync(join(tmpdir(), "flux-e2e-redis-"));
  }

  static get isHere() {
    return spawnSync("redis-server", ["--version"]).status === 0;
  }

  get url() {
    return `redis://${this.host}:${this.port}`;
  }

  /** `options` are further arguments, `first` those that stand before all others. */
  async start(options = this.options ?? [], first = this.first ?? []) {
    this.port ??= await freePort(this.host);
    this.options = options;
    this.first = first;
    const persistence = first.length > 0 ? [] : ["--save", "", "--appendonly", "no", "--dir", this.folder];
    this.args = [...first, "--port", String(this.port), "--bind", this.host, ...persistence, ...options];
    this.spawn();
    await until("redis answers", () => this.ask("PING").then((answer) => answer === "PONG"));
    return this;
  }

  /** One command; answers the text that redis-cli prints. */
  async ask(...words) {
    const child = spawn("redis-cli", ["-h", this.host, "-p", String(this.port), ...words], { stdio: ["ignore", "pipe", "ignore"] });
    let out = "";
    child.stdout.on("data", (bytes) => { out += bytes; });
    return new Promise((resolve) => { child.once("close", () => resolve(out.trim())); });
  }

  async remove() {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A gateway. `settings` is merged into its configuration file; `config` is a file that stands instead of it. */
export class Gateway extends Process {
  constructor(id, { redis, shards = 2, settings = {}, config, env = {} } = {}) {
    super(id, join(PROGRAMS, "flux-gateway"), []);
    this.id = id;
    this.folder = mkdtempSync(join(tmpdir(), `flux-e2e-${id}-`));
    const file = join(this.folder, "config.json");
    const { channel = {}, client = {}, ...rest } = settings;
    writeFileSync(file, JSON.stringify({
      echo: true,
      drain_seconds: 4,
      ...rest,
      client: { allowed_origins: ["http://allowed.localhost:*"], ...client },
      channel: { without_namespace: OPEN, ...channel },
    }));
    this.env = env;
    this.args = ["--config", config ?? file, "--id", id, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", String(shards)];
    if (redis) this.args.push("--redis", redis.url);
  }

  async start() {
    this.spawn();
    const { clients, admin } = await this.listening("listening");
    this.address = clients;
    this.admin = admin;
    this.url = `ws://${clients}/connection/websocket`;
    await until(`${this.id} is ready`, async () => (await fetch(`http://${admin}/ready`)).status === 200);
    return this;
  }

  /** Waits until nothing is missing: a node is ready before it has reached Redis for the first time. */
  async whole() {
    await until(`${this.id} has all that it needs`, async () => (await this.ready()).degraded.length === 0, 20_000);
    return this;
  }

  async status() {
    return (await fetch(`http://${this.admin}/api/status`)).json();
  }

  async ready() {
    const answer = await fetch(`http://${this.admin}/ready`);
    return { status: answer.status, ...(await answer.json()) };
  }

  /** The sum of a metric's series whose labels contain `labels`. */
  async metric(name, labels = "") {
    const text = await (await fetch(`http://${this.admin}/metrics`)).text();
    return text.split("\n")
      .filter((line) => (line.startsWith(`${name}{`) || line.startsWith(`${name}_total{`) || line.startsWith(`${name} `) || line.startsWith(`${name}_total `)) && line.includes(labels))
      .reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
  }

  async remove() {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A balancer. */
export class Balancer extends Process {
  constructor(redis) {
    super("flux-lb", join(PROGRAMS, "flux-lb"), ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--redis", redis.url, "--shards", "1"]);
  }

  async start() {
    this.spawn();
    const { listen, admin } = await this.listening("balancer is up");
    this.admin = admin;
    this.url = `ws://${listen}/connection/websocket`;
    return this;
  }

  async nodes() {
    return (await fetch(`http://${this.admin}/api/nodes`)).json();
  }

  /** Where a key goes now. */
  async owner(key) {
    return (await (await fetch(`http://${this.admin}/api/ring?key=${key}`)).json()).node;
  }

  remove() {
    return this.kill();
  }
}

/** Redis, gateways and a balancer that routes to all of them. */
export class Cluster {
  constructor(count, options = {}) {
    this.redis = new Redis();
    this.count = count;
    this.options = options;
    this.gateways = [];
  }

  async start() {
    await this.redis.start();
    for (let number = 1; number <= this.count; number += 1) {
      this.gateways.push(new Gateway(`gateway-${number}`, { redis: this.redis, ...this.options }));
    }
    this.balancer = new Balancer(this.redis);
    await Promise.all([...this.gateways, this.balancer].map((process) => process.start()));
    await Promise.all(this.gateways.map((gateway) => gateway.whole()));
    await this.routes(this.gateways.map((gateway) => gateway.id));
    return this;
  }

  /** Waits until exactly these nodes get new connections. */
  async routes(ids) {
    await until(`the balancer routes to ${ids}`, async () => {
      const eligible = (await this.balancer.nodes()).filter((node) => node.eligible).map((node) => node.id).sort();
      return eligible.join() === [...ids].sort().join();
    }, 30_000);
  }

  get processes() {
    return [this.redis, ...this.gateways, this.balancer];
  }

  async remove() {
    await Promise.all(this.processes.filter(Boolean).map((process) => process.remove()));
  }
}

/** A port of a loopback address that nobody listens on. */
export async function freePort(host) {
  const server = net.createServer();
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, host, resolve));
  const { port } = server.address();
  await new Promise((resolve) => { server.close(resolve); });
  return port;
}
