// Figures of the last minutes: what the dashboard kept, then what arrives.

import { look } from "./format.js";

const empty = () => ({ connections: [], messages_per_s: [], states: "" });
const LETTERS = { STARTING: "S", READY: "R", DRAINING: "D", DEAD: "X", LEFT: "L" };

export class History {
  constructor() {
    this.length = 150;
    this.step = 2000;
    this.sampled = 0;
    this.total = empty();
    this.accepts = [];
    this.nodes = new Map();
  }

  /** Takes over what the server has kept. */
  load(kept) {
    this.step = kept.step_ms || this.step;
    this.sampled = kept.at_ms;
    this.total = kept.total;
    this.accepts = kept.accepts_per_s;
    this.nodes = new Map(Object.entries(kept.nodes));
  }

  of(id) {
    return this.nodes.get(id) ?? empty();
  }

  /** Adds a point when one is due. */
  add(topology) {
    if (topology.at_ms - this.sampled < this.step) return;
    this.sampled = topology.at_ms;
    const alive = topology.nodes.filter((n) => n.state !== "DEAD");
    const sum = (field) => alive.reduce((total, n) => total + n[field], 0);
    this.push(this.total, sum("connections"), sum("messages_per_s"), "R");
    this.accepts.push(topology.balancers.reduce((total, b) => total + b.accepts_per_s, 0));
    if (this.accepts.length > this.length) this.accepts.shift();
    const present = new Set(topology.nodes.map((n) => n.id));
    for (const id of this.nodes.keys()) if (!present.has(id)) this.nodes.delete(id);
    for (const node of topology.nodes) {
      if (!this.nodes.has(node.id)) this.nodes.set(node.id, empty());
      this.push(this.nodes.get(node.id), node.connections, node.messages_per_s, LETTERS[look(node)]);
    }
  }

  push(track, connections, messages, letter) {
    track.connections.push(connections);
    track.messages_per_s.push(messages);
    track.states += letter;
    if (track.connections.length > this.length) {
      track.connections.shift();
      track.messages_per_s.shift();
      track.states = track.states.slice(-this.length);
    }
  }
}
