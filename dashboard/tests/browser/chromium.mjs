// One way to start the browser: Debian's Chromium, headless, nothing in the
// background, its profile in a new folder that goes with it.

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PLACES = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

export const chromium = PLACES.find((path) => path && existsSync(path)) ?? null;

const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
];

/** Opens a context; `close` ends the browser and removes its profile. */
export async function launch(options = {}) {
  const { chromium: driver } = await import("playwright-core");
  const profile = mkdtempSync(join(tmpdir(), "flux-chromium-"));
  const context = await driver.launchPersistentContext(profile, { executablePath: chromium, headless: true, args: FLAGS, ...options });
  return {
    context,
    close: async () => {
      await context.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}
