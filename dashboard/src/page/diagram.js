// The topology drawn: clients -> balancers -> nodes -> registry.
//
// Wide: left to right. Narrow: top to bottom, with a trunk on each side of the
// column of nodes. The skeleton is drawn anew only when its shape changes;
// figures move inside it.

import { attribute, s, text } from "./dom.js";
import { count, look, rate, seconds } from "./format.js";
import { heartbeat } from "./cards.js";

const DRAWN_MAX = 24;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Diagram {
  constructor(element, onOpen) {
    this.element = element;
    this.onOpen = onOpen;
    this.shape = "";
    this.topology = null;
    new ResizeObserver(() => this.topology && this.draw(this.topology)).observe(element);
  }

  draw(topology) {
    this.topology = topology;
    const style = getComputedStyle(this.element);
    const width = Math.round(this.element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
    if (width < 100) return;
    const nodes = topology.nodes.slice(0, DRAWN_MAX);
    const hidden = topology.nodes.length - nodes.length;
    const shape = [width, hidden, ...topology.balancers.map((b) => b.admin), "|", ...nodes.map((n) => n.id)].join(" ");
    if (shape !== this.shape) {
      const focused = this.element.contains(document.activeElement) ? document.activeElement.dataset.node : null;
      this.shape = shape;
      this.build(width, topology, nodes, hidden);
      if (focused) this.nodes.get(focused)?.group.focus();
    }
    this.update(topology, nodes);
  }

  build(width, topology, nodes, hidden) {
    const plan = width < 620 ? tall(width, topology, nodes, hidden) : wide(width, topology, nodes, hidden);
    const wires = s("g", { "aria-hidden": "true" });
    const boxes = s("g");
    this.svg = s("svg", { viewBox: `0 0 ${width} ${plan.height}`, width, height: plan.height, role: "group", "aria-label": "Topology" }, wires, boxes);

    const wire = (d, kind) => {
      const base = s("path", { d, class: `wire ${kind}` });
      const over = s("path", { d, class: kind === "registry-wire" ? "ping" : "flow none", pathLength: kind === "registry-wire" ? 100 : null });
      wires.append(base, over);
      return { base, over };
    };

    this.clients = plain(boxes, plan.clients, "Clients");
    this.registry = plain(boxes, plan.registry, "Registry");
    this.balancers = topology.balancers.map((balancer, i) => ({
      ...plain(boxes, plan.balancers[i], balancer.id),
      wire: wire(plan.clientWire(i), "client-wire"),
    }));
    this.nodes = new Map(nodes.map((node, i) => {
      const box = this.nodeBox(boxes, plan.nodes[i], node);
      box.wires = topology.balancers.map((_, b) => wire(plan.nodeWire(b, i), "node-wire"));
      box.beatWire = wire(plan.registryWire(i), "registry-wire");
      box.seq = null;
      return [node.id, box];
    }));
    if (nodes.length === 0) {
      const { x, y, w, h } = plan.vacant;
      boxes.append(s("rect", { x, y, width: w, height: h, rx: 10, class: "vacant" }), s("text", { x: x + w / 2, y: y + h / 2 + 5, "text-anchor": "middle" }, "no nodes yet"));
    }
    if (hidden > 0) boxes.append(s("text", { x: plan.more.x, y: plan.more.y, "text-anchor": "middle" }, `and ${count(hidden)} more below`));
    this.element.replaceChildren(this.svg);
  }

  nodeBox(parent, at, node) {
    const { x, y, w, h } = at;
    const name = s("text", { x: x + 16, y: y + 22, class: "name" });
    const word = s("text", { x: x + 16, y: y + 40, class: "word" });
    const load = s("text", { x: x + w - 12, y: y + 22, class: "big", "text-anchor": "end" });
    const flow = s("text", { x: x + w - 12, y: y + 40, "text-anchor": "end" });
    const beat = s("rect", { x: x + 16, y: y + h - 11, width: 0, height: 4, rx: 2, class: "beat" });
    const group = s("g", {
      class: "node", role: "button", tabindex: "0", "aria-haspopup": "dialog", "data-node": node.id,
      onclick: () => this.onOpen(node.id),
      onkeydown: (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          this.onOpen(node.id);
        }
      },
    },
      s("rect", { x, y, width: w, height: h, rx: 10, class: "box" }),
      s("path", { class: "edge-mark", d: `M${x + 5} ${y + 12}v${h - 24}` , stroke: "none" }),
      s("rect", { x: x + 5, y: y + 12, width: 4, height: h - 24, rx: 2, class: "edge-mark" }),
      name, word, load, flow,
      s("rect", { x: x + 16, y: y + h - 11, width: w - 28, height: 4, rx: 2, class: "track" }), beat);
    parent.append(group);
    fit(name, node.id, w - 110);
    return { group, word, load, flow, beat, beatWidth: w - 28 };
  }

  update(topology, nodes) {
    const up = topology.balancers.filter((b) => b.state !== "unreachable");
    const flows = up.reduce((sum, b) => sum + b.flows, 0);
    const connections = nodes.reduce((sum, n) => sum + (n.state === "DEAD" ? 0 : n.connections), 0);
    text(this.clients.line, `${count(flows || connections)} connected`);
    text(this.registry.line, { ok: "readable", stale: "not answering", unreachable: "unreachable" }[topology.registry.state]);
    attribute(this.registry.group, "data-state", { ok: "READY", stale: "DRAINING", unreachable: "DEAD" }[topology.registry.state]);

    topology.balancers.forEach((balancer, b) => {
      const box = this.balancers[b];
      const lost = balancer.state === "unreachable";
      attribute(box.group, "data-state", lost ? "DEAD" : balancer.state === "ok" ? "READY" : "DRAINING");
      text(box.line, balancer.state === "ok" ? `${count(balancer.flows)} flows` : balancer.state);
      fit(box.title, balancer.id, box.width - 30);
      attribute(box.wire.base, "class", `wire${lost ? " broken" : ""}`);
      attribute(box.wire.base, "stroke-width", lost ? 1.5 : 2 + Math.min(4, Math.log10(1 + balancer.flows)));
      lap(box.wire.over, lost ? 0 : balancer.flows + balancer.accepts_per_s * 20);
    });

    const thick = nodes.length > 8 ? 2 : 4;
    const busiest = Math.max(1, ...nodes.map((n) => n.connections));
    for (const node of nodes) {
      const box = this.nodes.get(node.id);
      const beat = heartbeat(node, topology);
      attribute(box.group, "data-state", look(node));
      attribute(box.group, "aria-label", `${node.id}: ${node.state}${node.reason ? `, ${node.reason}` : ""}, ${count(node.connections)} connections, heartbeat ${seconds(node.heartbeat_age_ms)} ago. Details`);
      const draining = node.state === "DRAINING" && node.drain;
      text(box.word, draining ? `DRAINING ${Math.ceil(node.drain.left_ms / 1000)} s` : node.state);
      text(box.load, count(node.connections));
      text(box.flow, `${rate(node.messages_per_s)} msg/s`);
      attribute(box.beat, "width", (node.orderly ? 0 : Math.min(1, beat.share) * box.beatWidth).toFixed(1));
      attribute(box.beat, "class", beat.mark === "late" ? "beat late" : "beat");
      const dead = node.state === "DEAD";
      for (const [b, { base, over }] of box.wires.entries()) {
        const cut = dead || topology.balancers[b].state === "unreachable";
        attribute(base, "class", `wire${cut || !node.routable ? " off" : ""}`);
        attribute(base, "stroke-width", cut ? 1.5 : (1.5 + thick * (node.connections / busiest)).toFixed(1));
        lap(over, cut ? 0 : node.connections + node.messages_per_s);
      }
      attribute(box.beatWire.base, "class", `wire registry-wire${topology.registry.state === "unreachable" ? " broken" : dead ? " off" : ""}`);
      if (node.detail.seq !== box.seq) {
        if (box.seq !== null && !calm.matches && topology.registry.state === "ok") ping(box.beatWire.over);
        box.seq = node.detail.seq;
      }
    }
  }
}

/** Dots on a wire: the more goes over it, the faster. */
function lap(path, load) {
  attribute(path, "class", load <= 0 ? "flow none" : "flow");
  if (load > 0) {
    const seconds = Math.max(0.5, 2.6 - Math.log10(1 + load) * 0.5).toFixed(1);
    if (path.dataset.lap !== seconds) {
      path.dataset.lap = seconds;
      path.style.setProperty("--lap", `${seconds}s`);
    }
    attribute(path, "stroke-width", 3);
  }
}

/** One heartbeat travels to the registry. */
function ping(path) {
  path.animate([{ strokeDashoffset: 5, opacity: 1 }, { strokeDashoffset: -95, opacity: 1 }], { duration: 900, easing: "ease-in-out" });
}

function plain(parent, { x, y, w, h }, title) {
  const name = s("text", { x: x + w / 2, y: y + h / 2 - 3, class: "name", "text-anchor": "middle" });
  const line = s("text", { x: x + w / 2, y: y + h / 2 + 16, "text-anchor": "middle" });
  const group = s("g", { class: "plain" }, s("rect", { x, y, width: w, height: h, rx: 10, class: "box" }), name, line);
  parent.append(group);
  fit(name, title, w - 16);
  return { group, title: name, line, width: w };
}

/** Cuts a name to the room it has; the full one stays in the card. */
function fit(element, value, room) {
  const most = Math.max(4, Math.floor(room / 8));
  text(element, value.length > most ? `${value.slice(0, most - 1)}…` : value);
}

function wide(width, topology, nodes, hidden) {
  const side = Math.max(132, Math.min(148, width * 0.17));
  const nodeWidth = Math.min(258, width * 0.31);
  const nodeHeight = nodes.length > 10 ? 60 : 66;
  const gap = nodes.length > 10 ? 10 : 16;
  const rows = Math.max(1, nodes.length);
  const column = rows * nodeHeight + (rows - 1) * gap;
  const balancerColumn = topology.balancers.length * 62 + Math.max(0, topology.balancers.length - 1) * 16;
  const height = Math.max(150, column, balancerColumn) + 24 + (hidden > 0 ? 24 : 0);
  const middle = (height - (hidden > 0 ? 24 : 0)) / 2;
  const free = (width - 3 * side - nodeWidth - 4) / 3;
  const xs = [2, 2 + side + free, 2 + 2 * (side + free), 2 + 2 * side + nodeWidth + 3 * free];
  const box = (x, y) => ({ x, y: y - 31, w: side, h: 62 });
  const nodeY = (i) => middle - column / 2 + i * (nodeHeight + gap);
  const balancerY = (b) => middle - balancerColumn / 2 + 31 + b * 78;
  const curve = (x1, y1, x2, y2) => {
    const bend = (x2 - x1) * 0.55;
    return `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
  };
  return {
    height,
    clients: box(xs[0], middle),
    balancers: topology.balancers.map((_, b) => box(xs[1], balancerY(b))),
    nodes: nodes.map((_, i) => ({ x: xs[2], y: nodeY(i), w: nodeWidth, h: nodeHeight })),
    registry: box(xs[3], middle),
    vacant: { x: xs[2], y: middle - 33, w: nodeWidth, h: 66 },
    more: { x: xs[2] + nodeWidth / 2, y: height - 10 },
    clientWire: (b) => curve(xs[0] + side, middle, xs[1], balancerY(b)),
    nodeWire: (b, i) => curve(xs[1] + side, balancerY(b), xs[2], nodeY(i) + nodeHeight / 2),
    registryWire: (i) => curve(xs[2] + nodeWidth, nodeY(i) + nodeHeight / 2, xs[3], middle),
  };
}

function tall(width, topology, nodes, hidden) {
  const margin = 30;
  const inner = width - 2 * margin;
  const middle = width / 2;
  const boxHeight = 54;
  const nodeHeight = 64;
  const balancers = Math.max(1, topology.balancers.length);
  const boxWidth = Math.min(190, (inner - (balancers - 1) * 8) / balancers);
  const balancerX = (b) => middle - (balancers * boxWidth + (balancers - 1) * 8) / 2 + b * (boxWidth + 8);
  const balancerTop = boxHeight + 30;
  const nodeTop = balancerTop + boxHeight + 34;
  const nodeY = (i) => nodeTop + i * (nodeHeight + 12);
  const registryTop = nodeY(Math.max(1, nodes.length)) + 18 + (hidden > 0 ? 20 : 0);
  return {
    height: registryTop + boxHeight + 6,
    clients: { x: middle - 95, y: 2, w: 190, h: boxHeight },
    balancers: topology.balancers.map((_, b) => ({ x: balancerX(b), y: balancerTop, w: boxWidth, h: boxHeight })),
    nodes: nodes.map((_, i) => ({ x: margin, y: nodeY(i), w: inner, h: nodeHeight })),
    registry: { x: middle - 95, y: registryTop, w: 190, h: boxHeight },
    vacant: { x: margin, y: nodeTop, w: inner, h: nodeHeight },
    more: { x: middle, y: registryTop - 12 },
    clientWire: (b) => `M${middle} ${boxHeight + 2}L${balancerX(b) + boxWidth / 2} ${balancerTop}`,
    nodeWire: (b, i) => {
      const turn = 10;
      const y = nodeY(i) + nodeHeight / 2;
      const start = balancerTop + boxHeight;
      const x = balancerX(b) + boxWidth / 2;
      const shelf = start + 16;
      return `M${x} ${start}V${shelf - 8}Q${x} ${shelf} ${x - 8} ${shelf}H${10 + turn}Q10 ${shelf} 10 ${shelf + turn}V${y - turn}Q10 ${y} ${10 + turn} ${y}H${margin}`;
    },
    registryWire: (i) => {
      const y = nodeY(i) + nodeHeight / 2;
      const edge = width - 10;
      const end = registryTop + boxHeight / 2;
      return `M${width - margin} ${y}H${edge - 10}Q${edge} ${y} ${edge} ${y + 10}V${end - 10}Q${edge} ${end} ${edge - 10} ${end}H${middle + 95}`;
    },
  };
}
