// What the page promises, one test each.

import assert from "node:assert/strict";

import { lowContrast } from "./contrast.mjs";
import { pause, until } from "./cluster.mjs";

export const tests = [];
const test = (name, run) => tests.push({ name, run });

const card = (page, number) => page.locator(`#cards [data-node="gateway-${number}"]`);
const word = (page, number) => card(page, number).locator(".pill").innerText();
const reason = (page, number) => card(page, number).locator(".reason").innerText();
const events = (page) => page.locator("#timeline li").allInnerTexts();

async function open({ nodes, dashboard, page }, options = {}) {
  if (options.nodes !== false) for (const node of nodes) await node.start();
  await dashboard.start();
  if (options.viewport) await page.setViewportSize(options.viewport);
  if (options.media) await page.emulateMedia(options.media);
  await page.goto(`${dashboard.url}/`);
  await page.waitForSelector('#live[data-state="live"]');
  if (options.nodes !== false) await until("three nodes ready", async () => (await page.locator('#cards > [data-state="READY"]').count()) === 3);
}

test("shows every node with its state, load, shards and heartbeat", async (world) => {
  const { page, nodes } = world;
  await open(world);
  assert.equal(new URL(page.url()).pathname, "/dashboard", "/ leads to the page");
  assert.equal(await page.locator("#overall-text").innerText(), "All 3 nodes ready");
  for (const node of nodes) {
    const it = card(page, node.number);
    await until("connections", async () => (await it.locator('[data-part="connections"]').innerText()) === node.connections.toLocaleString("en-US"));
    assert.equal(await it.locator(".shard").count(), 2);
    assert.match(await it.locator('[data-part="beat-words"]').innerText(), /^\d\.\d s of 15 s$/);
    // Its own estimate stands there until the balancer has answered.
    await until("the balancer's share", async () => (await it.locator('[data-part="share"]').innerText()) === "33.3 %");
    assert.equal(await page.locator(`#diagram [data-node="gateway-${node.number}"]`).getAttribute("data-state"), "READY");
  }
  await until("total", async () => (await page.locator("#sum-connections").innerText()) === "3,666");
  await until("balancer", async () => (await page.locator("#diagram").innerText()).includes("lb-1"));
  assert.equal((await events(page)).length, 3);
});

test("a node whose heartbeats stop turns DEAD with the reason and comes back READY", async (world) => {
  const { page, nodes } = world;
  await open(world);
  const stopped = Date.now();
  nodes[1].silence();
  await until("DEAD", async () => (await word(page, 2)) === "DEAD", 18000);
  const took = Date.now() - stopped;
  assert.ok(took > 13000 && took < 17000, `DEAD after ${took} ms of a TTL of 15 s`);
  assert.match(await reason(page, 2), /^no heartbeat for 1\d\.\d s/);
  assert.equal(await page.locator('#banners [data-problem="node"] strong').innerText(), "gateway-2 is dead.");
  assert.match(await page.locator("#announce").textContent(), /gateway-2 is DEAD: no heartbeat/);
  assert.equal(await word(page, 1), "READY");
  await nodes[1].resume();
  await until("READY", async () => (await word(page, 2)) === "READY");
  await until("healed", async () => (await events(page))[0].includes("healed"));
  assert.equal(await page.locator("#banners .banner").count(), 0);
});

test("a killed node is DEAD as soon as nobody reaches it and joins again as a new process", async (world) => {
  const { page, nodes } = world;
  await open(world);
  const killed = Date.now();
  await nodes[2].kill();
  await until("DEAD", async () => (await word(page, 3)) === "DEAD", 8000);
  assert.ok(Date.now() - killed < 6000);
  assert.match(await reason(page, 3), /^probe failing: connection refused/);
  assert.match(await card(page, 3).locator(".facts").innerText(), /no new clients/);
  await nodes[2].restart();
  await until("READY", async () => (await word(page, 3)) === "READY");
  await until("joined", async () => (await events(page)).some((e) => e.includes("back as a new process")));
});

test("a draining node shows its progress, leaves in order and comes back", async (world) => {
  const { page, nodes } = world;
  await open(world);
  const node = nodes[1];
  await node.startDrain(30);
  await until("DRAINING", async () => (await word(page, 2)) === "DRAINING");
  const it = card(page, 2);
  node.connections = 611;
  await until("progress", async () => (await it.locator('[data-part="drain-words"]').innerText()) === "611 of 1,222 clients left");
  assert.match(await it.locator('[data-part="drain-left"]').innerText(), /^(2\d|30) s$/);
  assert.equal(await it.getByRole("progressbar").getAttribute("aria-valuenow"), "50");
  assert.match(await it.locator(".facts").innerText(), /no new clients/);
  assert.equal(await page.locator("#overall-text").innerText(), "1 draining");
  node.connections = 0;
  await node.leave();
  await until("DEAD", async () => (await word(page, 2)) === "DEAD");
  assert.equal(await reason(page, 2), "left after its drain");
  assert.equal(await it.getAttribute("data-state"), "LEFT", "no alarm");
  assert.equal(await page.locator("#banners .banner").count(), 0);
  node.connections = 7;
  await node.restart();
  await until("READY", async () => (await word(page, 2)) === "READY");
  const told = (await events(page)).filter((e) => e.includes("gateway-2")).join("\n");
  for (const kind of ["draining", "left", "joined"]) assert.ok(told.includes(kind), `${kind} in ${told}`);
});

test("says that the registry is unreachable, keeps the nodes, and heals", async (world) => {
  const { page, redis, nodes } = world;
  await open(world);
  await redis.stop();
  const banner = page.locator('#banners [data-problem="registry"]');
  await until("banner", async () => (await banner.count()) === 1, 5000);
  await until("unreachable", async () => (await banner.innerText()).includes("The registry is unreachable."), 20000);
  assert.equal(await page.locator('#cards > [data-state="READY"]').count(), 3, "they still answer their probes");
  await redis.start();
  for (const node of nodes) await node.beat();
  await until("banner gone", async () => (await banner.count()) === 0);
  await until("in the timeline", async () => (await events(page))[0].includes("can be read again"));
  assert.equal(await page.locator('#cards > [data-state="READY"]').count(), 3);
});

test("says that the balancer is unreachable", async (world) => {
  const { page, balancer } = world;
  await open(world);
  await until("lb-1", async () => (await page.locator("#diagram").innerText()).includes("lb-1"));
  await balancer.admin.close();
  const banner = page.locator('#banners [data-problem="lb"]');
  await until("banner", async () => (await banner.innerText()).includes("Balancer lb-1 is unreachable."), 8000);
  await balancer.admin.open();
  await until("banner gone", async () => (await banner.count()) === 0);
});

test("says when its data is old and goes on by itself", async (world) => {
  const { page, dashboard, nodes } = world;
  await open(world);
  dashboard.freeze();
  await until("old", async () => /^Data is [3-9] s old\.$/.test(await page.locator('#banners [data-problem="old"] strong').innerText({ timeout: 500 })), 8000);
  assert.match(await page.locator("#live-text").innerText(), /^Data is \d+ s old$/);
  dashboard.thaw();
  await until("live", async () => (await page.locator("#live").getAttribute("data-state")) === "live");
  assert.equal(await page.locator('#banners [data-problem="old"]').count(), 0);
  // Started again at the same address: a new stream, a timeline that counts from the beginning.
  assert.equal(await dashboard.stop(), 0, "exit code of SIGTERM with an open stream");
  await until("old", async () => (await page.locator('#banners [data-problem="old"]').count()) === 1);
  await dashboard.start();
  await until("live", async () => (await page.locator("#live").getAttribute("data-state")) === "live", 15000);
  await until("timeline", async () => (await events(page)).length === nodes.length);
});

test("the timeline and the sparklines survive a reload", async (world) => {
  const { page, nodes } = world;
  await open(world);
  await nodes[0].startDrain(30);
  await until("draining", async () => (await events(page))[0].includes("draining"));
  await pause(4500);
  const before = await events(page);
  await page.reload();
  await page.waitForSelector('#live[data-state="live"]');
  await until("the same timeline", async () => (await events(page)).length === before.length);
  assert.deepEqual(await events(page), before);
  assert.ok((await page.locator("#spark-connections .stroke").getAttribute("d")).split("L").length >= 3);
});

test("an empty cluster says what to do, and what is done appears", async (world) => {
  const { page, nodes } = world;
  await open(world, { nodes: false });
  assert.equal(await page.locator("#empty h3").innerText(), "No node has registered yet");
  assert.match(await page.locator("#empty code").innerText(), /\.\/start\.sh/);
  await nodes[0].start();
  await until("the node", async () => (await word(page, 1)) === "READY");
  assert.equal(await page.locator("#empty").isVisible(), false);
});

test("fits a phone without scrolling sideways", async (world) => {
  const { page, nodes } = world;
  await open(world, { viewport: { width: 360, height: 740 } });
  await nodes[1].startDrain(30);
  await nodes[2].kill();
  await until("DEAD", async () => (await word(page, 3)) === "DEAD");
  const wide = () => page.evaluate(() => {
    const room = document.documentElement.clientWidth;
    const all = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && !e.closest(".scroll, .unseen"));
    return { over: document.documentElement.scrollWidth - room, out: all.filter((e) => e.getBoundingClientRect().right > room + 0.5).map((e) => `${e.tagName}.${e.getAttribute("class")}`).slice(0, 5) };
  });
  assert.deepEqual(await wide(), { over: 0, out: [] });
  await card(page, 2).locator(".open").click();
  await page.waitForSelector("#detail[open]");
  assert.deepEqual(await wide(), { over: 0, out: [] });
  const target = await page.locator("#detail button").boundingBox();
  assert.ok(target.height >= 24 && target.width >= 24);
});

test("the keyboard opens details, closes them and returns to where it was", async (world) => {
  const { page, nodes } = world;
  await open(world);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip", "skip link first");
  const reached = [];
  for (let i = 0; i < 30; i += 1) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => document.activeElement.closest("[data-node]")?.dataset.node + "/" + document.activeElement.tagName);
    reached.push(at);
    if (at === "gateway-2/BUTTON") break;
  }
  assert.ok(reached.includes("gateway-1/g"), `nodes of the drawing: ${reached}`);
  assert.equal(reached.at(-1), "gateway-2/BUTTON");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#detail[open]");
  assert.equal(await page.locator("#detail h2").innerText(), "gateway-2");
  for (const said of [String(nodes[1].generation), nodes[1].nonce, nodes[1].admin.address, "127.0.0.1:8002", "20,000", "200 ready", "eligible"]) {
    await until(said, async () => (await page.locator("#detail").innerText()).includes(said));
  }
  assert.ok(await page.evaluate(() => document.activeElement.closest("#detail") !== null), "focus is inside");
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("#detail[open]").count(), 0);
  assert.equal(await page.evaluate(() => document.activeElement.closest("[data-node]").dataset.node), "gateway-2");
  await page.locator('#diagram [data-node="gateway-3"]').focus();
  await page.keyboard.press("Enter");
  await page.waitForSelector("#detail[open]");
  assert.equal(await page.locator("#detail h2").innerText(), "gateway-3");
  // Documents go on arriving: the panel stays, and so does what has the focus.
  await pause(1500);
  assert.ok(await page.evaluate(() => document.activeElement.closest("#detail") !== null));
});

test("has names for people who listen, and a table", async (world) => {
  const { page } = world;
  await open(world);
  for (const role of ["banner", "main", "contentinfo"]) assert.equal(await page.getByRole(role).count(), 1, role);
  for (const name of ["Topology", "Nodes", "Timeline", "Cluster totals"]) assert.equal(await page.getByRole("region", { name, exact: true }).count(), 1, name);
  assert.equal(await page.getByRole("meter", { name: "heartbeat age" }).count(), 3);
  assert.equal(await page.getByRole("button", { name: "gateway-1, READY, details" }).count(), 1);
  assert.match(await page.locator('#diagram [data-node="gateway-1"]').getAttribute("aria-label"), /^gateway-1: READY, 1,111 connections/);
  await page.getByText("Show as a table").click();
  await until("rows", async () => (await page.locator("#table tr").count()) === 3);
  assert.match(await page.locator("#table tr").nth(1).innerText(), /gateway-2\s+READY\s+yes\s+1,222/);
  assert.equal(await page.locator("#announce").textContent(), "", "no change, nothing said");
});

for (const colorScheme of ["light", "dark"]) {
  test(`every text stands out in the ${colorScheme} scheme`, async (world) => {
    const { page, nodes, balancer } = world;
    await open(world, { media: { colorScheme, reducedMotion: "reduce" }, viewport: { width: 1280, height: 900 } });
    await nodes[0].startDrain(30);
    await nodes[2].kill();
    await balancer.admin.close();
    await until("DEAD", async () => (await word(page, 3)) === "DEAD");
    await until("banner", async () => (await page.locator('#banners [data-problem="lb"]').count()) === 1);
    await page.getByText("Show as a table").click();
    const shown = await page.evaluate(lowContrast);
    assert.ok(shown.checked > 80, `${shown.checked} texts looked at`);
    assert.deepEqual(shown.low, []);
    await card(page, 3).locator(".open").click();
    await page.waitForSelector("#detail[open]");
    assert.deepEqual((await page.evaluate(lowContrast)).low, []);
    const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.equal(dark, colorScheme === "dark" ? "rgb(12, 17, 23)" : "rgb(244, 246, 249)");
    await balancer.admin.open();
  });
}

test("stands still where motion is not wanted", async (world) => {
  const { page } = world;
  await open(world, { media: { reducedMotion: "reduce" } });
  await pause(1500);
  const moving = await page.evaluate(() => document.getAnimations().filter((a) => a.playState === "running").length);
  assert.equal(moving, 0);
});

test("runs nothing that is not its own", async (world) => {
  const { page, dashboard, nodes } = world;
  nodes[0].id = "gateway-1";
  nodes[0].page = () => ({ code: 503, body: { ready: false, reasons: ["<img src=x onerror=\"document.title='broken'\">"], degraded: [] } });
  for (const node of nodes) await node.start();
  await dashboard.start();
  const asked = [];
  page.on("request", (request) => asked.push(new URL(request.url()).origin));
  const answer = await page.goto(`${dashboard.url}/dashboard`);
  assert.match(answer.headers()["content-security-policy"], /^default-src 'self'/);
  assert.equal(answer.headers()["x-content-type-options"], "nosniff");
  await until("the words of the node", async () => (await reason(page, 1)).includes("<img src=x"));
  assert.equal(await page.title(), "Flux cluster");
  assert.deepEqual([...new Set(asked)], [dashboard.url]);
});
