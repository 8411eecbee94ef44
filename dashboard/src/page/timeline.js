// What happened, newest first.

import { h, keyed } from "./dom.js";
import { KINDS, time } from "./format.js";

const SHOWN_MAX = 120;

export function entry(event) {
  const [word, state] = KINDS[event.kind] ?? [event.kind, "LEFT"];
  return h("li", { "data-state": state, "data-kind": event.kind },
    h("p", { class: "who" }, event.subject, h("span", { class: "kind" }, word)),
    h("time", { datetime: new Date(event.at_ms).toISOString(), title: new Date(event.at_ms).toLocaleString() }, time(event.at_ms)),
    h("p", { class: "what" }, event.text));
}

export function timeline(list, empty, events) {
  keyed(list, events.slice(-SHOWN_MAX).reverse(), (event) => event.seq, entry);
  empty.hidden = events.length > 0;
}
