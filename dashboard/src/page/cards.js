// One card a node.

import { attribute, bar, h, keyed, s, text } from "./dom.js";
import { SHAPES, count, look, percent, rate, seconds, span } from "./format.js";
import { lane, spark } from "./spark.js";

export function pill() {
  return h("span", { class: "pill" },
    s("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" },
      s("path", { d: "", fill: "none", stroke: "currentColor", "stroke-width": "2", "stroke-linecap": "round", "stroke-linejoin": "round" })),
    h("span"));
}

export function setPill(element, node) {
  const state = look(node);
  attribute(element, "data-state", state);
  attribute(element.querySelector("path"), "d", SHAPES[state]);
  text(element.lastElementChild, node.state);
}

/** How full the heartbeat's bar is and what to say beside it. */
export function heartbeat(node, topology) {
  const blind = topology.registry.state !== "ok";
  const share = node.heartbeat_age_ms / node.ttl_ms;
  const mark = blind ? "unknown" : share >= 1 ? "late" : share > 0.6 ? "warn" : "";
  const words = blind
    ? `last seen ${span(node.heartbeat_age_ms)} ago`
    : share >= 1
      ? `none for ${span(node.heartbeat_age_ms)}`
      : `${seconds(node.heartbeat_age_ms)} of ${count(node.ttl_ms / 1000)} s`;
  return { share, mark, words };
}

/** The drain in words and as a share done. */
export function progress(drain) {
  const from = Math.max(drain.from ?? drain.remaining, drain.remaining);
  const left = drain.left_ms ?? 0;
  return {
    share: from === 0 ? 1 : (from - drain.remaining) / from,
    words: `${count(drain.remaining)} of ${count(from)} clients left`,
    countdown: left > 0 ? `${Math.ceil(left / 1000)} s` : "ending",
  };
}

export function shardRows(list, shards) {
  const top = Math.max(1, ...shards.map((shard) => shard.connections));
  keyed(list, shards, (shard) => shard.shard,
    (shard) => h("li", { class: "shard" }, h("span", {}, String(shard.shard)), h("span", { class: "bar", "aria-hidden": "true" }, h("i")), h("b")),
    (row, shard) => {
      attribute(row, "aria-label", `shard ${shard.shard}: ${count(shard.connections)} connections`);
      bar(row.querySelector("i"), shard.connections / top);
      text(row.lastElementChild, count(shard.connections));
    });
}

function make(node, onOpen) {
  const part = (name, element) => { element.dataset.part = name; return element; };
  const title = `${node.id}-title`;
  return h("li", { class: "card", "aria-labelledby": title, "data-node": node.id },
    h("div", { class: "card-head" },
      h("h3", { id: title }, h("button", { class: "open", type: "button", "aria-haspopup": "dialog", onclick: () => onOpen(node.id) }, node.id)),
      part("pill", pill())),
    part("reason", h("p", { class: "reason" })),
    part("drain", h("div", { class: "drain" },
      h("p", { class: "row" }, part("drain-words", h("b")), part("drain-left", h("span"))),
      h("div", { class: "bar", role: "progressbar", "aria-label": `drain of ${node.id}`, "aria-valuemin": "0", "aria-valuemax": "100" }, part("drain-bar", h("i"))))),
    h("div", { class: "pair" },
      h("div", {}, h("p", { class: "label" }, "Connections"), part("connections", h("p", { class: "value" })), part("spark-c", h("div", { class: "spark" }))),
      h("div", {}, h("p", { class: "label" }, "Messages/s"), part("messages", h("p", { class: "value" })), part("spark-m", h("div", { class: "spark" })))),
    h("div", { class: "beat" },
      h("p", { class: "row" }, h("span", {}, "Heartbeat"), part("beat-words", h("b"))),
      h("div", { class: "bar", role: "meter", "aria-label": "heartbeat age", "aria-valuemin": "0" }, part("beat-bar", h("i")))),
    h("div", {}, h("p", { class: "row" }, h("span", {}, "Shards"), h("span", {}, "connections")), part("shards", h("ul", { class: "shards" }))),
    h("div", {}, h("p", { class: "row" }, h("span", {}, "Last 5 minutes")), part("lane", h("div", { class: "lane", "aria-hidden": "true" }))),
    h("p", { class: "facts" },
      part("routable", h("span")), h("span", {}, "ring ", part("share", h("b"))), h("span", {}, part("channels", h("b")), " channels"), part("addr", h("span", { class: "addr" }))));
}

function update(card, node, topology, history) {
  const parts = card.parts ??= Object.fromEntries([...card.querySelectorAll("[data-part]")].map((e) => [e.dataset.part, e]));
  attribute(card, "data-state", look(node));
  setPill(parts.pill, node);
  text(parts.reason, node.reason);
  parts.reason.hidden = node.reason === "";
  text(parts.connections, count(node.connections));
  text(parts.messages, rate(node.messages_per_s));
  const track = history.of(node.id);
  spark(parts["spark-c"], track.connections, history.length);
  spark(parts["spark-m"], track.messages_per_s, history.length);
  lane(parts.lane, track.states, history.length);
  const beat = heartbeat(node, topology);
  text(parts["beat-words"], node.orderly ? "left" : beat.words);
  bar(parts["beat-bar"], node.orderly ? 0 : beat.share, beat.mark);
  const meter = parts["beat-bar"].parentElement;
  attribute(meter, "aria-valuemax", Math.round(node.ttl_ms / 1000));
  attribute(meter, "aria-valuenow", Math.min(Math.round(node.ttl_ms / 1000), Math.round(node.heartbeat_age_ms / 1000)));
  attribute(meter, "aria-valuetext", beat.words);
  parts.drain.hidden = !node.drain;
  if (node.drain) {
    const { share, words, countdown } = progress(node.drain);
    text(parts["drain-words"], words);
    text(parts["drain-left"], countdown);
    bar(parts["drain-bar"], share);
    attribute(parts["drain-bar"].parentElement, "aria-valuenow", Math.round(share * 100));
    attribute(parts["drain-bar"].parentElement, "aria-valuetext", `${words}, ${countdown}`);
  }
  shardRows(parts.shards, node.shards);
  parts.shards.parentElement.hidden = node.shards.length === 0;
  text(parts.routable, node.routable ? "takes new clients" : "no new clients");
  text(parts.share, percent(node.ring_share));
  text(parts.channels, count(node.channels));
  text(parts.addr, node.addr);
  attribute(card.querySelector(".open"), "aria-label", `${node.id}, ${node.state}, details`);
}

const SHOWN_MAX = 60;
const URGENCY = { DEAD: 0, DRAINING: 1, STARTING: 2, LEFT: 3, READY: 4 };

/** All nodes by id; of very many those that need eyes, each state by id. */
function shown(nodes) {
  if (nodes.length <= SHOWN_MAX) return nodes;
  return [...nodes].sort((a, b) => URGENCY[look(a)] - URGENCY[look(b)]).slice(0, SHOWN_MAX);
}

export function cards(list, more, topology, history, onOpen) {
  const { nodes } = topology;
  more.hidden = nodes.length <= SHOWN_MAX;
  text(more, `${count(SHOWN_MAX)} of ${count(nodes.length)} nodes, those that are not ready first. The others stand in the table above.`);
  keyed(list, shown(nodes), (node) => node.id, (node) => make(node, onOpen),
    (card, node) => update(card, node, topology, history));
}
