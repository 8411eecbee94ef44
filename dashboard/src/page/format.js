// Numbers, times and state words as people read them.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

export const count = (n) => whole.format(Math.round(Number(n) || 0));

export function rate(n) {
  const value = Number(n) || 0;
  return value > 0 && value < 10 && !Number.isInteger(value) ? tenth.format(value) : whole.format(value);
}

export const percent = (share) => `${tenth.format((Number(share) || 0) * 100)} %`;
export const seconds = (ms) => `${tenth.format(Math.max(0, Number(ms) || 0) / 1000)} s`;
export const time = (ms) => clock.format(new Date(ms));

export function span(ms) {
  const s = Math.max(0, Math.floor((Number(ms) || 0) / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** The state that colours follow: a node that left in order is no alarm. */
export const look = (node) => (node.state === "DEAD" && node.orderly ? "LEFT" : node.state);

/** Shapes beside the words: colour is never the only sign. */
export const SHAPES = {
  READY: "M1 5.5 4 8.5 9 2",
  STARTING: "M1.2 5h.01M5 5h.01M8.8 5h.01",
  DRAINING: "M5 1v7M2 5.5 5 8.5 8 5.5",
  DEAD: "M2 2l6 6M8 2l-6 6",
  LEFT: "M1.5 5h7",
};

export const KINDS = {
  "joined": ["joined", "STARTING"],
  "ready": ["ready", "READY"],
  "draining": ["draining", "DRAINING"],
  "left": ["left", "LEFT"],
  "dead": ["dead", "DEAD"],
  "healed": ["healed", "READY"],
  "fenced": ["fenced", "DEAD"],
  "registry-lost": ["unreachable", "DEAD"],
  "registry-back": ["back", "READY"],
  "balancer-lost": ["unreachable", "DEAD"],
  "balancer-back": ["back", "READY"],
};
