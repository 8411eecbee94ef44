// The page in a real browser, against the real dashboard and a real Redis:
//   node dashboard/tests/browser/run.mjs [words of a test's name]
// DASHBOARD_BIN names a built flux-dashboard; without it one is built.

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium, launch } from "./chromium.mjs";
import { Balancer, Dashboard, Node, Redis } from "./cluster.mjs";
import { tests } from "./tests.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const TEST_MS = 60000;

function skip(reason) {
  console.log(`skipped: ${reason}`);
  console.log(`0 passed, 0 failed, ${tests.length} skipped`);
  process.exit(0);
}

if (!chromium) skip("no Chromium here (install the package chromium, or give its path as CHROMIUM)");
if (!Redis.binary) skip("no redis-server here (install the package redis-server)");
if (!existsSync(join(HERE, "node_modules/playwright-core"))) {
  const install = spawnSync("npm", ["ci", "--no-fund", "--no-audit"], { cwd: HERE, encoding: "utf8" });
  if (install.status !== 0) skip(`npm ci failed: ${install.stderr.trim().split("\n").at(-1)}`);
}

const wanted = process.argv.slice(2).join(" ");
const chosen = tests.filter(({ name }) => name.includes(wanted));
const binary = Dashboard.find();
let passed = 0;
let failed = 0;

for (const { name, run } of chosen) {
  const cleanup = [];
  const started = Date.now();
  const world = { cleanup };
  try {
    const redis = await new Redis().start();
    cleanup.push(() => redis.remove());
    const nodes = [1, 2, 3].map((number) => new Node(redis, number));
    cleanup.push(() => Promise.all(nodes.map((node) => node.stop())));
    const balancer = await new Balancer(nodes).start();
    cleanup.push(() => balancer.admin.close());
    const dashboard = new Dashboard(binary, redis, balancer);
    world.dashboard = dashboard;
    cleanup.push(() => dashboard.stop());
    const browser = await launch();
    cleanup.push(() => browser.close());
    const page = browser.context.pages()[0] ?? (await browser.context.newPage());
    const complaints = [];
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("console", (message) => {
      // A server that is stopped on purpose is told of by the browser; all else is ours.
      if (message.type() === "error" && !message.text().includes("net::ERR_")) complaints.push(message.text());
    });
    Object.assign(world, { redis, nodes, balancer, browser, page, complaints });
    let timer;
    const late = new Promise((_, fail) => { timer = setTimeout(() => fail(new Error(`not done after ${TEST_MS} ms`)), TEST_MS); });
    await Promise.race([run(world), late]).finally(() => clearTimeout(timer));
    if (complaints.length > 0) throw new Error(`the page complains: ${complaints.join("; ")}`);
    passed += 1;
    console.log(`ok      ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}\n        ${error.stack.replaceAll("\n", "\n        ")}`);
    if (world.dashboard?.log) console.log(`        dashboard: ${world.dashboard.log.split("\n").slice(-12).join("\n                   ")}`);
  }
  for (const undo of cleanup.reverse()) await undo().catch((error) => console.log(`        cleaning up: ${error.message}`));
}

console.log(`${passed} passed, ${failed} failed, 0 skipped`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
