// The JavaScript SDK in a real browser: an allowed and a refused origin.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import http from "node:http";
import { fileURLToPath } from "node:url";

import { chromium, launch } from "../../../dashboard/tests/browser/chromium.mjs";
import { JavaScriptClient } from "../clients/javascript.mjs";
import { until } from "../harness/poll.mjs";
import { Gateway } from "../harness/processes.mjs";
import { Skip, alone, suite } from "../harness/suite.mjs";

const SDK = fileURLToPath(new URL("../node_modules/centrifuge/dist/centrifuge.js", import.meta.url));
const DRIVER = fileURLToPath(new URL("../../../dashboard/tests/browser/node_modules/playwright-core", import.meta.url));

/** A page that holds the SDK. Both origins lead to it: `*.localhost` is loopback in every browser. */
async function pages() {
  const server = http.createServer((request, response) => {
    const isSdk = request.url === "/centrifuge.js";
    response.setHeader("Content-Type", isSdk ? "text/javascript" : "text/html");
    response.end(isSdk ? readFileSync(SDK) : "<!doctype html><title>client</title><script src=/centrifuge.js></script>");
  });
  await new Promise((resolve) => { server.listen(0, "127.0.0.1", resolve); });
  return server;
}

async function world() {
  if (!chromium) throw new Skip("no Chromium here");
  if (!existsSync(DRIVER)) throw new Skip("no playwright-core in dashboard/tests/browser (npm ci there)");
  const { gateway, stop, processes } = await alone(Gateway);
  const server = await pages();
  const browser = await launch();
  const open = async (host) => {
    const page = await browser.context.newPage();
    await page.goto(`http://${host}:${server.address().port}/`);
    await page.evaluate((url) => {
      window.events = [];
      window.client = new Centrifuge(url, { minReconnectDelay: 200, maxReconnectDelay: 400 });
      for (const kind of ["connecting", "connected", "disconnected", "error"]) {
        window.client.on(kind, (context) => window.events.push({ kind, code: context.code ?? context.error?.code }));
      }
      window.client.connect();
    }, gateway.url);
    return page;
  };
  return {
    gateway,
    open,
    processes,
    stop: async () => {
      await browser.close();
      server.closeAllConnections();
      server.close();
      await stop();
    },
  };
}

export const suites = [
  suite("browser", world, {
    "a page of an allowed origin connects, subscribes, publishes and is heard": async ({ gateway, open, add }) => {
      const listener = add(new JavaScriptClient(gateway.url)).open();
      await listener.subscribe("web");
      const page = await open("allowed.localhost");
      const heard = await page.evaluate(async () => {
        await window.client.ready(5000);
        const subscription = window.client.newSubscription("web");
        const publication = new Promise((resolve) => { subscription.on("publication", resolve); });
        subscription.subscribe();
        await subscription.ready(5000);
        await subscription.publish({ from: "browser" });
        return (await publication).data;
      });
      assert.deepEqual(heard, { from: "browser" });
      await listener.hears("web", { from: "browser" });
      await page.close();
      await until("its connection is gone", async () => (await gateway.status()).connections === 1);
    },

    "a page of another origin is refused with 403, and counted": async ({ gateway, open }) => {
      const page = await open("refused.localhost");
      await until("two refused attempts", async () => (await gateway.metric("flux_requests_refused", 'reason="origin"')) >= 2);
      const events = await page.evaluate(() => window.events);
      assert.ok(!events.some(({ kind }) => kind === "connected"), JSON.stringify(events));
      await page.close();
    },
  }),
];
