// The page: takes documents, hands them to what draws them.

import { banners, problems } from "./banners.js";
import { cards, heartbeat } from "./cards.js";
import { Detail } from "./detail.js";
import { Diagram } from "./diagram.js";
import { attribute, h, keyed, text } from "./dom.js";
import { count, look, percent, rate } from "./format.js";
import { History } from "./history.js";
import { follow, get } from "./live.js";
import { lane, spark } from "./spark.js";
import { timeline } from "./timeline.js";

const OLD_MS = 3000;
const EVENTS_MAX = 500;
const LANES_MAX = 4;

const $ = (id) => document.getElementById(id);
const history = new History();
let topology = null;
let heard = performance.now();
let events = [];
let asking = false;
const states = new Map();

const detail = new Detail($("detail"));
const open = (id) => topology && detail.open(id, topology, history, events);
const diagram = new Diagram($("diagram"), open);

function receive(document_) {
  topology = document_;
  heard = performance.now();
  history.add(topology);
  announce();
  draw();
  if (topology.timeline_last !== (events.at(-1)?.seq ?? 0)) askTimeline();
}

async function askTimeline() {
  if (asking) return;
  asking = true;
  try {
    const last = events.at(-1)?.seq ?? 0;
    // A dashboard that was started again counts from 1: take its list whole.
    const again = topology !== null && topology.timeline_last < last;
    const answer = await get(`/api/timeline?after=${again ? 0 : last}`);
    events = (again ? answer.events : [...events, ...answer.events]).slice(-EVENTS_MAX);
    timeline($("timeline"), $("timeline-empty"), events);
    if (topology) detail.update(topology, history, events);
  } catch (error) {
    console.warn(error.message);
  } finally {
    asking = false;
  }
}

function draw() {
  text($("cluster"), topology.cluster);
  const members = topology.nodes.filter((n) => look(n) !== "LEFT");
  const ready = members.filter((n) => n.state === "READY");
  const alive = topology.nodes.filter((n) => n.state !== "DEAD");
  const sum = (field) => alive.reduce((total, n) => total + n[field], 0);
  text($("sum-nodes"), count(ready.length));
  text($("sum-nodes-of"), members.length ? ` of ${count(members.length)}` : "");
  text($("sum-connections"), count(sum("connections")));
  text($("sum-messages"), rate(sum("messages_per_s")));
  text($("sum-accepts"), rate(topology.balancers.reduce((total, b) => total + b.accepts_per_s, 0)));
  spark($("spark-connections"), history.total.connections, history.length);
  spark($("spark-messages"), history.total.messages_per_s, history.length);
  spark($("spark-accepts"), history.accepts, history.length);
  keyed($("sum-lanes"), topology.nodes.slice(0, LANES_MAX), (n) => n.id, () => h("div", { class: "lane" }),
    (strip, n) => lane(strip, history.of(n.id).states, history.length));
  overall(members, ready);
  diagram.draw(topology);
  cards($("cards"), $("more"), topology, history, open);
  table();
  empty();
  detail.update(topology, history, events);
  freshness();
}

function overall(members, ready) {
  const dead = members.filter((n) => n.state === "DEAD").length;
  const draining = members.filter((n) => n.state === "DRAINING").length;
  const trouble = topology.registry.state !== "ok" || topology.balancers.some((b) => b.state !== "ok" && b.state !== "unknown");
  let tone = "good";
  let words = `All ${count(members.length)} nodes ready`;
  if (members.length === 0) [tone, words] = ["wait", "No nodes"];
  else if (dead > 0) [tone, words] = ["bad", `${count(dead)} of ${count(members.length)} nodes dead`];
  else if (draining > 0) [tone, words] = ["warn", `${count(draining)} draining`];
  else if (ready.length < members.length) [tone, words] = ["wait", `${count(members.length - ready.length)} starting`];
  else if (members.length === 1) words = "The one node is ready";
  if (trouble && tone !== "bad") tone = "warn";
  attribute($("overall"), "data-tone", tone);
  text($("overall-text"), words);
}

function table() {
  keyed($("table"), topology.nodes, (n) => n.id,
    () => h("tr", {}, h("th", { scope: "row" }), h("td"), h("td"), h("td", { class: "n" }), h("td", { class: "n" }), h("td", { class: "n" }), h("td", { class: "n" }), h("td"), h("td")),
    (row, n) => {
      const values = [n.id, n.state, n.routable ? "yes" : "no", count(n.connections), rate(n.messages_per_s), heartbeat(n, topology).words, percent(n.ring_share), n.probe, n.reason];
      values.forEach((value, i) => text(row.children[i], value));
    });
}

function empty() {
  const box = $("empty");
  box.hidden = topology.nodes.length > 0;
  if (box.hidden) return;
  const blind = topology.registry.state !== "ok";
  const key = blind ? "blind" : "none";
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  box.replaceChildren(...(blind
    ? [h("h3", {}, "The registry cannot be read yet"), h("p", {}, "Nodes appear here as soon as it answers. Is Redis running, and is --redis its address?"), h("code", {}, "redis-cli -p 6390 ping")]
    : [h("h3", {}, "No node has registered yet"), h("p", {}, "A node appears here within a second of its start. Start the whole cluster, or one node by hand:"), h("code", {}, "./start.sh\nflux-gateway --id gateway-1 --redis redis://127.0.0.1:6390")]));
}

/** Says state changes, and only those, to people who listen. */
function announce() {
  const said = [];
  for (const node of topology.nodes) {
    const was = states.get(node.id);
    if (was !== undefined && was !== node.state) said.push(`${node.id} is ${node.state}${node.reason ? `: ${node.reason}` : ""}.`);
    states.set(node.id, node.state);
  }
  for (const [key, state] of [["registry", topology.registry.state], ...topology.balancers.map((b) => [`balancer ${b.id}`, b.state])]) {
    const was = states.get(`/${key}`);
    if (was !== undefined && was !== state) said.push(`The ${key} is ${state}.`);
    states.set(`/${key}`, state);
  }
  if (said.length > 0) text($("announce"), said.join(" "));
}

function freshness() {
  const silent = performance.now() - heard;
  const old = silent >= OLD_MS;
  attribute($("live"), "data-state", old ? "old" : topology ? "live" : "wait");
  text($("live-text"), old ? `Data is ${Math.floor(silent / 1000)} s old` : topology ? "Live" : "Connecting");
  document.body.classList.toggle("old", old && topology !== null);
  banners($("banners"), problems(topology, old ? silent : null));
}

try {
  history.load(await get("/api/history"));
} catch (error) {
  console.warn(error.message);
}
follow(receive);
setInterval(freshness, 500);
