// The page with made-up documents, for work on it without a cluster:
//   node dashboard/tests/browser/sample.mjs [calm|drain|trouble|blind|empty|many] [port]

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { dirname, extname, join, basename } from "node:path";
import { fileURLToPath } from "node:url";

const PAGE = join(dirname(fileURLToPath(import.meta.url)), "../../src/page");
const KINDS = { ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml" };
const CSP = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const wave = (i, t, base, swing) => Math.round(base + swing * Math.sin(t / 9000 + i * 1.7) + swing * 0.4 * Math.sin(t / 2300 + i));

function node(i, t, more = {}) {
  const connections = wave(i, t, 4200 + i * 160, 260);
  const shards = [0, 1].map((shard) => ({ shard, connections: Math.round(connections * (shard ? 0.49 : 0.51)) }));
  return {
    id: `gateway-${i}`, state: "READY", reason: "", routable: true, generation: 1763693473000 + i, addr: `127.0.0.1:800${i}`,
    heartbeat_age_ms: (t + i * 1700) % 5000, ttl_ms: 15000, probe: "ok", connections, channels: 310 + i, messages_per_s: wave(i, t, 18400, 2100),
    ring_share: [0.333, 0.341, 0.322, 0.337][i % 4], shards, drain: null, since_ms: Date.now() - 3600e3, orderly: false,
    detail: { admin: `127.0.0.1:810${i}`, record_state: "ready", nonce: "9f3a61c2d0b84e17", seq: Math.floor((t + i * 1700) / 5000), build: "0.1.0", zone: "a", weight: 1, capacity: 50000, started_ms: Date.now() - 3600e3, probe: "200 ready", degraded: [], flows: connections, balancer: "eligible" },
    ...more,
  };
}

const gone = { connections: 0, channels: 0, messages_per_s: 0, routable: false, ring_share: 0.33, shards: [{ shard: 0, connections: 0 }, { shard: 1, connections: 0 }] };

function nodes(scenario, t) {
  const three = [1, 2, 3].map((i) => node(i, t));
  switch (scenario) {
    case "empty": case "blind-empty": return [];
    case "many": return Array.from({ length: 300 }, (_, i) => node(i + 1, t));
    case "drain": {
      const left = 30000 - (t % 30000);
      const remaining = Math.round(4300 * left / 30000);
      three[1] = node(2, t, { state: "DRAINING", reason: "draining, no new clients", routable: false, connections: remaining,
        shards: [0, 1].map((shard) => ({ shard, connections: Math.round(remaining / 2) })),
        drain: { remaining, from: 4300, started_ms: 0, deadline_ms: 30000, left_ms: left } });
      return three;
    }
    case "trouble":
      three[1] = node(2, t, { ...gone, state: "DEAD", reason: "probe failing: connection refused (last heartbeat 7.1 s ago)", probe: "failing", heartbeat_age_ms: 7100 + t % 9000 });
      three.push(node(4, t, { ...gone, state: "DEAD", orderly: true, reason: "left after its drain", heartbeat_age_ms: 95000 }), node(5, t, { ...gone, state: "STARTING", reason: "starting, no clients yet" }));
      return three;
    default: return three;
  }
}

const start = Date.now() - 300e3;
function topology(scenario) {
  const t = Date.now() - start;
  const list = nodes(scenario, t);
  const blind = scenario.startsWith("blind");
  const flows = list.reduce((sum, n) => sum + n.connections, 0);
  return {
    cluster: "flux", at_ms: Date.now(), timeline_last: events(scenario).length,
    registry: { state: blind ? "unreachable" : "ok", age_ms: blind ? 42000 : 120, rejected: 0 },
    balancers: [scenario === "blind"
      ? { id: "lb-1", state: "unreachable", flows: 0, accepts_per_s: 0, reason: "connection refused", admin: "127.0.0.1:8090" }
      : { id: "lb-1", state: "ok", flows, accepts_per_s: list.length ? wave(1, t, 42, 12) : 0, reason: "", admin: "127.0.0.1:8090" }],
    nodes: list,
  };
}

function events(scenario) {
  if (scenario.includes("empty")) return [];
  const list = [
    ["joined", "gateway-1", "takes clients"], ["joined", "gateway-2", "takes clients"], ["joined", "gateway-3", "still starting"],
    ["ready", "gateway-3", "takes clients"], ["dead", "gateway-3", "no heartbeat for 15.1 s"], ["healed", "gateway-3", "back after 23.4 s"],
    ["draining", "gateway-4", "drains, 4,118 clients to move"], ["left", "gateway-4", "left after its drain"],
    ["fenced", "gateway-1", "generation 1763693479201 took the id from 1763693473001, which had not left"],
  ];
  if (scenario === "trouble") list.push(["dead", "gateway-2", "probe failing: connection refused (last heartbeat 2.3 s ago)"]);
  if (scenario === "drain") list.push(["draining", "gateway-2", "drains, 4,300 clients to move"]);
  if (scenario === "blind") list.push(["registry-lost", "registry", "cannot be read, what is shown comes from probes"], ["balancer-lost", "lb-1", "does not answer: connection refused"]);
  return list.map(([kind, subject, text], i) => ({ seq: i + 1, at_ms: start + i * 31000, kind, subject, text }));
}

function kept(scenario) {
  const points = scenario.includes("empty") ? [] : Array.from({ length: 150 }, (_, i) => i * 2000);
  const track = (i) => ({ connections: points.map((t) => node(i, t).connections), messages_per_s: points.map((t) => node(i, t).messages_per_s), states: points.map((_, p) => (i === 3 && p > 60 && p < 74 ? "X" : i === 4 && p > 99 ? (p < 114 ? "D" : "L") : "R")).join("") });
  const list = nodes(scenario, 0);
  const tracks = Object.fromEntries(list.map((n, i) => [n.id, track(i + 1)]));
  const sum = (field) => points.map((_, p) => Object.values(tracks).reduce((total, one) => total + one[field][p], 0));
  return { step_ms: 2000, at_ms: Date.now(), total: { connections: sum("connections"), messages_per_s: sum("messages_per_s"), states: "" }, accepts_per_s: points.map((t) => wave(1, t, 42, 12)), nodes: tracks };
}

/** Serves the page; `scenario` may be changed while it runs. */
export async function serve(scenario, port = 0) {
  const state = { scenario };
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, "http://localhost");
    const json = (value) => response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(value));
    if (url.pathname === "/api/topology") return json(topology(state.scenario));
    if (url.pathname === "/api/timeline") return json({ events: events(state.scenario).filter((e) => e.seq > Number(url.searchParams.get("after"))) });
    if (url.pathname === "/api/history") return json(kept(state.scenario));
    if (url.pathname === "/api/events") {
      response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
      const send = () => response.write(`data: ${JSON.stringify(topology(state.scenario))}\n\n`);
      send();
      const timer = setInterval(send, 1000);
      return request.on("close", () => clearInterval(timer));
    }
    const name = url.pathname === "/dashboard" ? "index.html" : basename(url.pathname);
    try {
      const body = await readFile(join(PAGE, name));
      response.writeHead(200, { "content-type": KINDS[extname(name)] ?? "text/plain", "content-security-policy": CSP }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((done) => server.listen(port, "127.0.0.1", done));
  return { url: `http://127.0.0.1:${server.address().port}/dashboard`, state, close: () => (server.closeAllConnections(), server.close()) };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { url } = await serve(process.argv[2] ?? "calm", Number(process.argv[3] ?? 0));
  console.log(url);
}
