// What is wrong, said plainly.

import { attribute, h, keyed, text } from "./dom.js";
import { count, seconds, span } from "./format.js";

const NODES_NAMED_MAX = 3;

/** The problems that a document tells of, worst first. */
export function problems(topology, oldMs) {
  const list = [];
  if (oldMs !== null) {
    list.push({ key: "old", tone: "bad", title: `Data is ${span(oldMs)} old.`, words: "The dashboard does not answer; this page connects again by itself. What you see is the last it heard." });
  }
  if (!topology) return list;
  const { registry } = topology;
  if (registry.state === "unreachable") {
    list.push({ key: "registry", tone: "bad", title: "The registry is unreachable.", words: `Last read ${span(registry.age_ms)} ago. Nodes keep their clients; states below come from probes, membership is as last seen.` });
  } else if (registry.state === "stale") {
    list.push({ key: "registry", tone: "warn", title: "The registry does not answer.", words: `Membership is ${seconds(registry.age_ms)} old.` });
  }
  for (const balancer of topology.balancers) {
    if (balancer.state === "unreachable") {
      list.push({ key: `lb ${balancer.admin}`, tone: "bad", title: `Balancer ${balancer.id} is unreachable.`, words: `${upper(balancer.reason)}. Routing below is the dashboard's own estimate.` });
    } else if (balancer.state === "failing" || balancer.state === "degraded") {
      list.push({ key: `lb ${balancer.admin}`, tone: "warn", title: `Balancer ${balancer.id} is ${balancer.state === "failing" ? "not ready" : "degraded"}.`, words: `${upper(balancer.reason)}.` });
    }
  }
  const down = topology.nodes.filter((n) => n.state === "DEAD" && !n.orderly);
  for (const node of down.slice(0, NODES_NAMED_MAX)) {
    list.push({ key: `node ${node.id}`, tone: "bad", title: `${node.id} is dead.`, words: `${upper(node.reason)}.` });
  }
  if (down.length > NODES_NAMED_MAX) {
    list.push({ key: "more", tone: "bad", title: `${count(down.length - NODES_NAMED_MAX)} more nodes are dead.`, words: "" });
  }
  const degraded = topology.nodes.filter((n) => n.detail.degraded.length > 0);
  if (degraded.length > 0 && registry.state === "ok") {
    list.push({ key: "degraded", tone: "warn", title: `${degraded.map((n) => n.id).slice(0, NODES_NAMED_MAX).join(", ")} degraded.`, words: `${upper(degraded[0].detail.degraded.join("; "))}.` });
  }
  if (registry.rejected > 0) {
    list.push({ key: "rejected", tone: "warn", title: `${count(registry.rejected)} record${registry.rejected === 1 ? "" : "s"} in the registry skipped.`, words: "They are not valid node records." });
  }
  return list;
}

const upper = (words) => words.charAt(0).toUpperCase() + words.slice(1);

export function banners(element, list) {
  keyed(element, list, (p) => p.key,
    (p) => h("div", { class: "banner", "data-problem": p.key.split(" ")[0] }, h("strong"), h("p")),
    (banner, p) => {
      attribute(banner, "data-tone", p.tone);
      text(banner.firstElementChild, p.title);
      text(banner.lastElementChild, p.words);
    });
}
