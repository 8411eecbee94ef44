// Waiting for something to become true: polled, with a deadline, and with words for when it does not.

import { setTimeout as sleep } from "node:timers/promises";

export { sleep };

/** Polls until `condition` gives something true, which is returned. */
export async function until(what, condition, ms = 10_000) {
  const deadline = Date.now() + ms;
  let last;
  for (;;) {
    try {
      const found = await condition();
      if (found) return found;
      last = undefined;
    } catch (error) {
      last = error;
    }
    if (Date.now() >= deadline) {
      throw new Error(`not within ${ms} ms: ${what}${last ? ` (${last.message})` : ""}`);
    }
    await sleep(20);
  }
}

/** Holds for the whole time, or fails with what it gave. */
export async function holds(what, condition, ms) {
  const deadline = Date.now() + ms;
  while (Date.now() < deadline) {
    if (!(await condition())) throw new Error(`did not hold for ${ms} ms: ${what}`);
    await sleep(20);
  }
}
