// A cluster as the dashboard sees one: a real redis-server with hand-written
// records, nodes and a balancer that are only admin pages, the real dashboard.
// Every port comes from the kernel; `stop` ends what was started here.

import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { connect, createServer as listener } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../../..");
const TTL_MS = 15000;

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export async function until(what, check, withinMs = 10000) {
  const end = Date.now() + withinMs;
  let last;
  while (Date.now() < end) {
    try {
      last = await check();
      if (last) return last;
    } catch (error) {
      last = error.message;
    }
    await pause(50);
  }
  throw new Error(`${what} did not come within ${withinMs} ms (last: ${JSON.stringify(last)})`);
}

function freePort() {
  return new Promise((done) => {
    const probe = listener().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => done(port));
    });
  });
}

function exited(child) {
  return child.exitCode !== null || child.signalCode !== null ? Promise.resolve() : new Promise((done) => child.once("exit", done));
}

/** A real redis-server in a folder of its own. */
export class Redis {
  static binary = ["/usr/bin/redis-server", "/usr/local/bin/redis-server"].find((path) => existsSync(path));

  async start() {
    this.folder ??= mkdtempSync(join(tmpdir(), "flux-redis-"));
    this.port ??= await freePort();
    this.child = spawn(Redis.binary, ["--port", this.port, "--bind", "127.0.0.1", "--dir", this.folder, "--save", "", "--appendonly", "no"], { stdio: "ignore" });
    await until("redis-server", async () => (await this.command("PING")) === "+PONG");
    return this;
  }

  get url() {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** One command, answered with its first line (or the body of a bulk string). */
  command(...parts) {
    return new Promise((done, fail) => {
      const socket = connect(this.port, "127.0.0.1");
      const bytes = parts.map((part) => `$${Buffer.byteLength(String(part))}\r\n${part}\r\n`).join("");
      let answer = "";
      socket.setTimeout(2000, () => socket.destroy(new Error("redis: no answer")));
      socket.on("error", fail);
      socket.on("data", (data) => {
        answer += data;
        if (!answer.endsWith("\r\n")) return;
        socket.end();
        done(answer.startsWith("*") || answer.startsWith("$") ? answer.split("\r\n").filter((_, i) => i % 2 === 0 && i > 0).join(" ") : answer.trimEnd());
      });
      socket.write(`*${parts.length}\r\n${bytes}`);
    });
  }

  async time() {
    const [s, us] = (await this.command("TIME")).trim().split(" ").map(Number);
    return s * 1000 + Math.floor(us / 1000);
  }

  async stop() {
    if (!this.child) return;
    this.child.kill("SIGKILL");
    await exited(this.child);
    this.child = null;
  }

  async remove() {
    await this.stop();
    if (this.folder) rmSync(this.folder, { recursive: true, force: true });
  }
}

async function admin(pages) {
  const server = createServer((request, response) => {
    const page = pages(request.url);
    response.writeHead(page?.code ?? (page ? 200 : 404), { "content-type": "application/json" }).end(JSON.stringify(page?.body ?? {}));
  });
  const port = await freePort();
  await new Promise((done) => server.listen(port, "127.0.0.1", done));
  const close = () => new Promise((done) => (server.closeAllConnections(), server.close(done)));
  const open = () => new Promise((done) => server.listen(port, "127.0.0.1", done));
  return { port, address: `127.0.0.1:${port}`, close, open };
}

/** A node that is a record, a heartbeat and an admin page. */
export class Node {
  constructor(redis, number) {
    this.redis = redis;
    this.id = `gateway-${number}`;
    this.number = number;
    this.state = "ready";
    this.connections = 1000 + number * 111;
    this.seq = 0;
    this.beating = false;
  }

  async start() {
    this.admin ??= await admin((url) => this.page(url));
    this.generation = await this.redis.time();
    this.nonce = Math.random().toString(16).slice(2).padEnd(16, "0").slice(0, 16);
    this.startedMs = Date.now();
    await this.resume();
    return this;
  }

  page(url) {
    if (url === "/ready") {
      const reasons = this.state === "ready" ? [] : [this.state];
      return { code: reasons.length ? 503 : 200, body: { ready: reasons.length === 0, reasons, degraded: [] } };
    }
    if (url === "/api/status") {
      const half = Math.floor(this.connections / 2);
      return { body: { id: this.id, version: "0.1.0", state: this.state, connections: this.connections, channels: 40 + this.number, messages_per_s: 120.5 * this.number, shards: [{ shard: 0, connections: this.connections - half }, { shard: 1, connections: half }] } };
    }
    return null;
  }

  async beat() {
    this.seq += 1;
    const record = {
      v: 1, id: this.id, generation: this.generation, nonce: this.nonce, state: this.state, addr: `127.0.0.1:${8000 + this.number}`, admin: this.admin.address,
      weight: 1, zone: "test", connections: this.connections, capacity: 20000, seq: this.seq, build: "0.1.0", started_ms: this.startedMs, ttl_ms: TTL_MS,
      drain_remaining: this.state === "draining" ? this.connections : 0, shards: [0, 0], channels: 0, messages_per_s: 0, messages_total: 0,
      ...(this.drain ?? {}),
    };
    await this.redis.command("HSET", "gateway:nodes", this.id, JSON.stringify(record));
    await this.redis.command("ZADD", "gateway:deadlines", (await this.redis.time()) + TTL_MS, this.id);
    await this.redis.command("PUBLISH", "gateway:events", JSON.stringify({ event: "changed", id: this.id }));
  }

  /** Heartbeats once a second from here on. */
  async resume() {
    await this.beat();
    this.beating = true;
    this.timer ??= setInterval(() => this.beating && this.beat().catch(() => {}), 1000);
  }

  /** The process is alive, its heartbeats do not arrive. */
  silence() {
    this.beating = false;
  }

  /** The process is gone. */
  async kill() {
    this.silence();
    await this.admin.close();
  }

  async startDrain(seconds) {
    const now = await this.redis.time();
    this.state = "draining";
    this.drain = { drain_started_ms: now, drain_deadline_ms: now + seconds * 1000 };
    await this.beat();
  }

  async leave() {
    this.silence();
    await this.redis.command("HDEL", "gateway:nodes", this.id);
    await this.redis.command("ZREM", "gateway:deadlines", this.id);
    const left = { generation: this.generation, reason: "left after its drain", at_ms: await this.redis.time(), addr: `127.0.0.1:${8000 + this.number}` };
    await this.redis.command("HSET", "gateway:departed", this.id, JSON.stringify(left));
    await this.redis.command("PUBLISH", "gateway:events", "{}");
    await this.admin.close();
  }

  /** A new process under the same id. */
  async restart() {
    await this.admin.open();
    this.state = "ready";
    this.drain = null;
    this.generation = await this.redis.time();
    this.nonce = Math.random().toString(16).slice(2).padEnd(16, "0").slice(0, 16);
    await this.redis.command("HDEL", "gateway:departed", this.id);
    await this.resume();
  }

  async stop() {
    clearInterval(this.timer);
    await this.admin?.close();
  }
}

export class Balancer {
  constructor(nodes) {
    this.nodes = nodes;
  }

  async start() {
    this.admin = await admin((url) => this.page(url));
    return this;
  }

  page(url) {
    const nodes = this.nodes.map((n) => ({ id: n.id, addr: `127.0.0.1:${8000 + n.number}`, state: n.state.toUpperCase(), eligible: n.beating && n.state === "ready", reason: n.beating ? (n.state === "ready" ? "" : n.state) : "probe failing", probe: n.beating ? "ok" : "failing", weight: 1, flows: n.connections, ring_share: 1 / this.nodes.length }));
    if (url === "/ready") return { body: { ready: true, reasons: [], degraded: [] } };
    if (url === "/api/nodes") return { body: nodes };
    if (url === "/api/status") return { body: { id: "lb-1", version: "0.1.0", state: "READY", flows: nodes.reduce((sum, n) => sum + n.flows, 0), accepts_per_s: 12.5 } };
    return null;
  }
}

/** The real program. */
export class Dashboard {
  static find() {
    const given = process.env.DASHBOARD_BIN;
    if (given) return given;
    const metadata = spawnSync("cargo", ["metadata", "--format-version", "1", "--no-deps"], { cwd: ROOT, encoding: "utf8", maxBuffer: 1 << 26 });
    const built = spawnSync("cargo", ["build", "-p", "flux-dashboard"], { cwd: ROOT, stdio: ["ignore", "inherit", "inherit"] });
    if (metadata.status !== 0 || built.status !== 0) throw new Error("flux-dashboard cannot be built; give a built one as DASHBOARD_BIN");
    return join(JSON.parse(metadata.stdout).target_directory, "debug/flux-dashboard");
  }

  constructor(binary, redis, balancer) {
    this.binary = binary;
    this.redis = redis;
    this.balancer = balancer;
  }

  async start() {
    this.port ??= await freePort();
    // Only what is given here counts, not what FLUX_ variables the caller has.
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("FLUX_")));
    this.log = "";
    this.child = spawn(this.binary, ["--listen", `127.0.0.1:${this.port}`, "--redis", this.redis.url, "--balancer", `http://${this.balancer.admin.address}`], { env, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.child.stdout, this.child.stderr]) stream.on("data", (data) => { this.log = (this.log + data).slice(-20000); });
    await until("dashboard", async () => {
      if (this.child.exitCode !== null) throw new Error(this.log);
      return (await fetch(`${this.url}/api/topology`)).ok;
    });
    return this;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  async topology() {
    return (await fetch(`${this.url}/api/topology`)).json();
  }

  freeze() {
    this.child.kill("SIGSTOP");
  }

  thaw() {
    this.child.kill("SIGCONT");
  }

  async stop() {
    if (!this.child) return null;
    this.child.kill("SIGCONT");
    this.child.kill("SIGTERM");
    const forced = setTimeout(() => this.child.kill("SIGKILL"), 5000);
    await exited(this.child);
    clearTimeout(forced);
    const code = this.child.exitCode;
    this.child = null;
    return code;
  }
}
