// Everything known about one node, beside the page.

import { bar, h, keyed, text } from "./dom.js";
import { count, look, percent, rate, seconds, span, time } from "./format.js";
import { heartbeat, pill, progress, setPill, shardRows } from "./cards.js";
import { spark } from "./spark.js";
import { entry } from "./timeline.js";

export class Detail {
  constructor(dialog) {
    this.dialog = dialog;
    this.id = null;
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => { this.id = null; });
  }

  open(id, topology, history, events) {
    this.id = id;
    const part = (name, element) => (this.parts[name] = element);
    this.parts = {};
    this.dialog.replaceChildren(
      h("div", { class: "detail-head" },
        h("h2", { id: "detail-title" }, id), part("pill", pill()),
        h("button", { type: "button", onclick: () => this.dialog.close() }, "Close")),
      h("div", { class: "detail-body" },
        part("reason", h("p", { class: "reason" })),
        part("drain", h("div", { class: "drain" }, h("p", { class: "row" }, part("drain-words", h("b")), part("drain-left", h("span"))), h("div", { class: "bar", "aria-hidden": "true" }, part("drain-bar", h("i"))))),
        h("section", {}, h("h3", {}, "Last 5 minutes"),
          h("p", { class: "row" }, h("span", {}, "Connections"), part("connections", h("b"))), part("spark-c", h("div", { class: "spark" })),
          h("p", { class: "row" }, h("span", {}, "Messages/s"), part("messages", h("b"))), part("spark-m", h("div", { class: "spark" }))),
        h("section", {}, h("h3", {}, "Shards"), part("shards", h("ul", { class: "shards" }))),
        h("section", {}, h("h3", {}, "Health"), part("health", h("dl"))),
        h("section", {}, h("h3", {}, "Record in the registry"), part("record", h("dl"))),
        h("section", {}, h("h3", {}, "Its events"), part("events", h("ol", { class: "timeline" })), part("no-events", h("p", { class: "soft" }, "None since the dashboard started.")))));
    this.update(topology, history, events);
    this.dialog.showModal();
    this.dialog.scrollTop = 0;
  }

  update(topology, history, events) {
    if (this.id === null) return;
    const node = topology.nodes.find((n) => n.id === this.id);
    if (!node) {
      this.dialog.close();
      return;
    }
    const { parts } = this;
    const { detail } = node;
    const track = history.of(node.id);
    this.dialog.dataset.state = look(node);
    setPill(parts.pill, node);
    text(parts.reason, node.reason);
    parts.reason.hidden = node.reason === "";
    parts.drain.hidden = !node.drain;
    if (node.drain) {
      const { share, words, countdown } = progress(node.drain);
      text(parts["drain-words"], words);
      text(parts["drain-left"], countdown);
      bar(parts["drain-bar"], share);
    }
    text(parts.connections, count(node.connections));
    text(parts.messages, rate(node.messages_per_s));
    spark(parts["spark-c"], track.connections, history.length);
    spark(parts["spark-m"], track.messages_per_s, history.length);
    shardRows(parts.shards, node.shards);
    parts.shards.parentElement.hidden = node.shards.length === 0;

    rows(parts.health, [
      ["State since", `${time(node.since_ms)} (${span(topology.at_ms - node.since_ms)})`],
      ["Heartbeat", heartbeat(node, topology).words],
      ["Probe", detail.probe],
      ["Degraded", detail.degraded.join("; ") || "no"],
      ["New clients", node.routable ? "yes" : "no"],
      ["Balancer", detail.balancer],
      ["Flows", detail.flows === null ? "not known" : count(detail.flows)],
    ]);
    rows(parts.record, [
      ["Generation", node.generation, true],
      ["Client address", node.addr, true],
      ["Admin address", detail.admin || "none", true],
      ["State", detail.record_state],
      ["Channels", count(node.channels)],
      ["Capacity", detail.capacity ? count(detail.capacity) : "not given"],
      ["Weight", count(detail.weight)],
      ["Ring share", percent(node.ring_share)],
      ["Zone", detail.zone || "none"],
      ["Build", detail.build || "not given"],
      ["Started", detail.started_ms ? new Date(detail.started_ms).toLocaleString() : "not given"],
      ["Heartbeats sent", count(detail.seq)],
      ["TTL", seconds(node.ttl_ms)],
      ["Nonce", detail.nonce || "none", true],
    ]);
    const own = events.filter((e) => e.subject === node.id).slice(-40).reverse();
    keyed(parts.events, own, (e) => e.seq, entry);
    parts["no-events"].hidden = own.length > 0;
  }
}

function rows(list, pairs) {
  const cells = pairs.flatMap(([name, value, mono]) => [{ key: `${name}?`, tag: "dt", value: name }, { key: name, tag: "dd", value, mono }]);
  keyed(list, cells, (c) => c.key, (c) => h(c.tag, { class: c.mono ? "mono" : "" }), (element, c) => text(element, c.value));
}
